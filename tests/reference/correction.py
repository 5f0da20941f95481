"""Importance weights of the sampler, token by token in Python floats."""

import math


def weights(
    old: list[float], rollout: list[float], mask: list[bool], level: str, mode: str, high: float, low: float
) -> list[float]:
    """Of one completion's tokens."""
    known = [t for t, taken in enumerate(mask) if taken and not math.isnan(rollout[t])]
    logs = {t: old[t] - rollout[t] for t in known}
    out = [0.0] * len(mask)
    for t in known:
        if level == "token":
            rho = math.exp(logs[t])
        elif level == "sequence":
            rho = math.exp(sum(logs.values()))
        else:
            rho = math.exp(sum(logs.values()) / len(logs))
        if mode == "truncate":
            out[t] = min(rho, high)
        elif low <= rho <= high:
            out[t] = 1.0 if level == "geometric" else rho
    return out

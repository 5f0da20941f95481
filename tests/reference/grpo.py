"""GRPO completion by completion in Python floats (arXiv:2402.03300 eq. 3 and section 4.1.2)."""

import math

from reference.ppo import Gradients, Rows, kl_term, surrogate


def advantages(rewards: list[float], groups: list[int], scored: list[bool], scale: str) -> list[float]:
    """Each scored completion against the scored completions of its group; a group all alike gives 0."""
    out = [0.0] * len(rewards)
    for i in range(len(rewards)):
        if not scored[i]:
            continue
        peers = [rewards[j] for j in range(len(rewards)) if scored[j] and groups[j] == groups[i]]
        if max(peers) - min(peers) <= 1e-6 * max(1.0, max(abs(r) for r in peers)):
            continue
        mean = sum(peers) / len(peers)
        std = math.sqrt(sum((r - mean) ** 2 for r in peers) / len(peers))
        out[i] = (rewards[i] - mean) / (std if scale == "std" else 1.0)
    return out


def loss(rows: dict[str, list], adv: list[float], config: dict) -> Gradients:
    """Mean over tokens, or over completions of the mean over their tokens."""
    mask = rows["mask"]
    num_tokens = sum(sum(m) for m in mask)
    num_rows = sum(any(m) for m in mask)
    d_logprobs, d_entropy = ([[0.0] * len(m) for m in mask] for _ in range(2))
    no_values: Rows = [[0.0] * len(m) for m in mask]
    total = 0.0
    for i, t in ((i, t) for i, m in enumerate(mask) for t, taken in enumerate(m) if taken):
        per_row = config["normalization"] == "sequence"
        weight = 1 / (num_rows * sum(mask[i])) if per_row else 1 / num_tokens
        logp = rows["logprobs"][i][t]
        p, dp = surrogate(logp, rows["old_logprobs"][i][t], adv[i], config["low"], config["high"])
        k, dk = kl_term(logp, rows["ref_logprobs"][i][t], config["estimator"])
        total += weight * (p + config["kl"] * k - config["entropy_coef"] * rows["entropy"][i][t])
        d_logprobs[i][t] = weight * (dp + config["kl"] * dk)
        d_entropy[i][t] = -weight * config["entropy_coef"]
    return Gradients(total, d_logprobs, no_values, d_entropy)

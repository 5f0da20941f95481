"""Algorithms without a critic, completion by completion in Python floats, written from their papers.

``advantages`` and ``token_terms`` follow each paper's formula; ``loss`` sums up, with gradients worked out by hand.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

from reference import grpo, ppo
from reference.kl import estimate
from reference.ppo import Gradients, Rows

Options = Mapping[str, Any]


def row_rewards(rows: dict[str, Any]) -> list[float]:
    """Rewards of completions, those of their tokens included."""
    return [
        reward + sum(x for x, taken in zip(extra, mask, strict=True) if taken)
        for reward, extra, mask in zip(rows["rewards"], rows["token_rewards"], rows["mask"], strict=True)
    ]


def grouped(rewards: list[float], rows: dict[str, Any], scale: str) -> list[float]:
    """Every scored completion against the scored completions of its group."""
    if scale in ("std", "none"):
        return grpo.advantages(rewards, rows["groups"], rows["scored"], scale)
    centered = grpo.advantages(rewards, rows["groups"], rows["scored"], "none")
    out = [0.0] * len(rewards)
    for i in range(len(rewards)):
        peers = [
            r for r, g, s in zip(rewards, rows["groups"], rows["scored"], strict=True) if s and g == rows["groups"][i]
        ]
        if not rows["scored"][i] or centered[i] == 0.0:
            continue
        mean = sum(peers) / len(peers)
        if scale == "leave_one_out":
            others = (sum(peers) - rewards[i]) / (len(peers) - 1)
            out[i] = rewards[i] - others
        elif mean > 0:
            out[i] = (rewards[i] - mean) / mean
    return out


def penalties(rows: dict[str, Any], coef: float) -> Rows:
    """coef * k1 of every response token, 0 elsewhere."""
    return [
        [
            coef * estimate(rows["old_logprobs"][i][t], rows["ref_logprobs"][i][t], "k1") if taken else 0.0
            for t, taken in enumerate(mask)
        ]
        for i, mask in enumerate(rows["mask"])
    ]


def advantages(name: str, rows: dict[str, Any], options: Options) -> Rows:
    """``[B][T]``, 0 outside the mask."""
    mask = rows["mask"]
    penalty = penalties(rows, options.get("reward_kl", 0.0))
    if name == "reinforce_pp":
        return ppo.whiten(returns_to_go(rows, penalty), mask)
    if name == "gdpo":
        return per_token(gdpo(rows, options, penalty), mask)
    rewards = [r - sum(p) for r, p in zip(row_rewards(rows), penalty, strict=True)]
    if name == "dapo" and options.get("buffer"):
        rewards = [r - overlong(sum(m), options) for r, m in zip(rewards, mask, strict=True)]
    per_row = per_token(grouped(rewards, rows, options.get("scale", "std")), mask)
    return ppo.whiten(per_row, mask) if name == "reinforce_pp_baseline" else per_row


def per_token(values: list[float], mask: list[list[bool]]) -> Rows:
    return [[value if taken else 0.0 for taken in m] for value, m in zip(values, mask, strict=True)]


def returns_to_go(rows: dict[str, Any], penalty: Rows) -> Rows:
    """REINFORCE++: what is earned from this token on."""
    out = []
    for i, mask in enumerate(rows["mask"]):
        steps = [t for t, taken in enumerate(mask) if taken]
        earned = {t: rows["token_rewards"][i][t] - penalty[i][t] for t in steps}
        if steps:
            earned[steps[-1]] += rows["rewards"][i]
        out.append([sum(earned[s] for s in steps if s >= t) if taken else 0.0 for t, taken in enumerate(mask)])
    return out


def overlong(length: int, options: Options) -> float:
    """DAPO eq. 13 with its sign turned: the penalty."""
    limit, buffer = options["limit"], options["buffer"]
    if length <= limit - buffer:
        return 0.0
    return options["penalty"] * min(1.0, (length - (limit - buffer)) / buffer)


def gdpo(rows: dict[str, Any], options: Options, penalty: Rows) -> list[float]:
    total = [0.0] * len(rows["mask"])
    for name in rows["components"][0]:
        values = [components[name] for components in rows["components"]]
        for i, value in enumerate(grpo.advantages(values, rows["groups"], rows["scored"], "std")):
            total[i] += options["weights"].get(name, 1.0) * value
    extra = [r - plain - sum(p) for r, plain, p in zip(row_rewards(rows), rows["rewards"], penalty, strict=True)]
    centered = grpo.advantages(extra, rows["groups"], rows["scored"], "none")
    summed = [[t + c] for t, c in zip(total, centered, strict=True)]
    taken = [[s and any(m)] for s, m in zip(rows["scored"], rows["mask"], strict=True)]
    return [row[0] for row in ppo.whiten(summed, taken)]


# Policy terms: (value, derivative by ln p of this token)


def clip(logp: float, old: float, a: float, options: Options) -> tuple[float, float]:
    return ppo.surrogate(logp, old, a, options["low"], options["high"])


def weigh(logp: float, old: float, a: float, options: Options) -> tuple[float, float]:
    weight = min(math.exp(logp - old), options["ratio_max"])
    return -weight * a * logp, -weight * a


def gate(logp: float, old: float, a: float, options: Options) -> tuple[float, float]:
    r = math.exp(logp - old)
    tau = options["tau_pos"] if a > 0 else options["tau_neg"]
    sigma = 1 / (1 + math.exp(-tau * (r - 1)))
    return -4 / tau * sigma * a, -4 * sigma * (1 - sigma) * r * a


def region(logp: float, old: float, a: float, options: Options) -> tuple[float, float]:
    change = math.exp(logp) - math.exp(old)
    outward = (a > 0 and change > 0) or (a < 0 and change < 0)
    if outward and abs(change) > options["max_change"]:
        return 0.0, 0.0
    r = math.exp(logp - old)
    return -r * a, -r * a


TERMS: dict[str, Callable[[float, float, float, Options], tuple[float, float]]] = {
    "rloo": weigh,
    "cispo": weigh,
    "sapo": gate,
    "dppo": region,
}


def sequence_terms(rows: dict[str, Any], i: int, a: float, options: Options) -> tuple[float, float]:
    """GSPO: the value of each token of a row, and the derivative of that row's mean by each ln p."""
    steps = [t for t, taken in enumerate(rows["mask"][i]) if taken]
    mean = sum(rows["logprobs"][i][t] - rows["old_logprobs"][i][t] for t in steps) / len(steps)
    value, slope = ppo.surrogate(mean, 0.0, a, options["low"], options["high"])
    return value, slope / len(steps)


def kl_term(rows: dict[str, Any], i: int, t: int, options: Options) -> tuple[float, float]:
    logp, ref, old = (rows[name][i][t] for name in ("logprobs", "ref_logprobs", "old_logprobs"))
    value, slope = ppo.kl_term(logp, ref, options["estimator"])
    if not options.get("weighted"):
        return value, slope
    r = math.exp(logp - old)
    return r * value, r * (logp - ref)


def weight(rows: dict[str, Any], mask: list[list[bool]], i: int, mean: str, options: Options) -> float:
    """Of one token in the optimizer step's loss."""
    num_rows = sum(any(m) for m in mask)
    if mean == "token":
        return 1 / sum(map(sum, mask))
    if mean == "sequence":
        return 1 / (num_rows * sum(mask[i]))
    return 1 / (num_rows * (options["length"] if mean == "constant" else 1))


def loss(name: str, rows: dict[str, Any], adv: Rows, options: Options) -> Gradients:
    """Of the whole batch as one optimizer step."""
    dropped = [options.get("filter", False) and cut for cut in rows["truncated"]]
    mask = [[taken and not out for taken in m] for m, out in zip(rows["mask"], dropped, strict=True)]
    d_logprobs, d_entropy, d_values = ([[0.0] * len(m) for m in mask] for _ in range(3))
    total = 0.0
    for i, t in ((i, t) for i, m in enumerate(mask) for t, taken in enumerate(m) if taken):
        w = weight(rows, mask, i, options["mean"], options)
        if name == "gspo":
            value, slope = sequence_terms(rows, i, adv[i][t], options)
            slope *= sum(mask[i])  # each of the row's tokens has this value, and depends on this token
        else:
            term = TERMS.get(name, clip)
            value, slope = term(rows["logprobs"][i][t], rows["old_logprobs"][i][t], adv[i][t], options)
        k, dk = kl_term(rows, i, t, options) if options.get("loss_kl") else (0.0, 0.0)
        coef = options.get("loss_kl", 0.0)
        total += w * (value + coef * k - options.get("entropy", 0.0) * rows["entropy"][i][t])
        d_logprobs[i][t] = w * (slope + coef * dk)
        d_entropy[i][t] = -w * options.get("entropy", 0.0)
    return Gradients(total, d_logprobs, d_values, d_entropy)

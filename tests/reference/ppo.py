"""PPO on token sequences, token by token in Python floats: values and the gradients worked out by hand."""

import math
from dataclasses import dataclass

from reference.gae import gae_row
from reference.kl import estimate

Rows = list[list[float]]


@dataclass
class Gradients:
    """The loss and its derivative by each token's log-probability, value and entropy."""

    loss: float
    logprobs: Rows
    values: Rows
    entropy: Rows


def advantages(
    rows: dict[str, list],
    gamma: float,
    lam: float,
    kl_coef: float,
    *,
    critic_lam: float | None = None,
    alpha: float | None = None,
) -> tuple[Rows, Rows]:
    """Unwhitened advantages and returns; ``kl_coef`` weighs the k1 penalty in the reward.

    VAPO (arXiv:2504.05118): ``critic_lam`` for the returns, lam = 1 - 1 / (alpha l) for a completion of l tokens.
    """
    all_advantages, all_returns = [], []
    for i, mask in enumerate(rows["mask"]):
        last = max((t for t, taken in enumerate(mask) if taken), default=-1)
        rewards = [0.0] * len(mask)
        for t, taken in enumerate(mask):
            if taken:
                rewards[t] = rows["token_rewards"][i][t] + (rows["rewards"][i] if t == last else 0.0)
                rewards[t] -= kl_coef * estimate(rows["old_logprobs"][i][t], rows["ref_logprobs"][i][t], "k1")
        mixing = lam if alpha is None else max(0.0, 1 - 1 / (alpha * max(1, sum(mask))))
        a, r = gae_row(rewards, rows["old_values"][i], mask, gamma, mixing)
        if critic_lam is not None:
            _, r = gae_row(rewards, rows["old_values"][i], mask, gamma, critic_lam)
        all_advantages.append(a)
        all_returns.append(r)
    return all_advantages, all_returns


def whiten(x: Rows, mask: list[list[bool]]) -> Rows:
    """Mean 0 and population standard deviation 1 over the masked entries; all 0 when they are all alike."""
    taken = [x[i][t] for i in range(len(x)) for t in range(len(x[i])) if mask[i][t]]
    if not taken:
        return x
    mean = sum(taken) / len(taken)
    std = math.sqrt(sum((v - mean) ** 2 for v in taken) / len(taken))
    return [
        [(v - mean) / std if m and std > 1e-6 else 0.0 for v, m in zip(xs, ms, strict=True)]
        for xs, ms in zip(x, mask, strict=True)
    ]


def surrogate(
    logp: float, old: float, advantage: float, low: float, high: float, dual: float | None = None
) -> tuple[float, float]:
    """-min(r A, clip(r) A), at most -dual A with A < 0, and its derivative by ln p: -r A, or 0 where it is clipped."""
    r = math.exp(logp - old)
    if dual is not None and advantage < 0 and r > dual:
        return -dual * advantage, 0.0
    clipped = min(max(r, 1 - low), 1 + high)
    if clipped * advantage < r * advantage:
        return -clipped * advantage, 0.0
    return -r * advantage, -r * advantage


def value_error(value: float, old: float, target: float, clip: float | None) -> tuple[float, float]:
    """1/2 max((V - R)^2, (V_clip - R)^2) and its derivative by V."""
    plain = (value - target) ** 2
    if clip is None:
        return plain / 2, value - target
    moved = old + min(max(value - old, -clip), clip)
    bounded = (moved - target) ** 2
    if bounded > plain:
        return bounded / 2, 0.0 if moved != value else value - target
    return plain / 2, value - target


def kl_term(logp: float, ref: float, estimator: str) -> tuple[float, float]:
    """The estimate and its derivative by ln p."""
    slope = logp - ref if estimator == "k2" else 1 - math.exp(ref - logp)
    return estimate(logp, ref, estimator), slope


def loss(rows: dict[str, list], adv: Rows, ret: Rows, config: dict) -> Gradients:
    """Token mean over all masked tokens of policy, value, entropy and KL terms."""
    mask = rows["mask"]
    n = max(1, sum(sum(m) for m in mask))
    grads = [[[0.0] * len(m) for m in mask] for _ in range(3)]
    total = 0.0
    for i, t in ((i, t) for i, m in enumerate(mask) for t, taken in enumerate(m) if taken):
        logp = rows["logprobs"][i][t]
        p, dp = surrogate(
            logp, rows["old_logprobs"][i][t], adv[i][t], config["low"], config["high"], config.get("dual")
        )
        v, dv = value_error(rows["values"][i][t], rows["old_values"][i][t], ret[i][t], config["value_clip"])
        k, dk = (0.0, 0.0)
        if config["loss_kl"] > 0:
            k, dk = kl_term(logp, rows["ref_logprobs"][i][t], config["estimator"])
        total += p + config["value_coef"] * v - config["entropy_coef"] * rows["entropy"][i][t]
        total += config["loss_kl"] * k
        grads[0][i][t] = (dp + config["loss_kl"] * dk) / n
        grads[1][i][t] = config["value_coef"] * dv / n
        grads[2][i][t] = -config["entropy_coef"] / n
    return Gradients(total / n, *grads)

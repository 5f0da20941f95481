"""KL divergences of small discrete distributions by enumeration, and the scalar estimators."""

import math


def estimate(logp: float, logq: float, estimator: str) -> float:
    """The three estimators in terms of the ratio q / p, as they are published."""
    ratio = math.exp(logq - logp)
    if estimator == "k1":
        return -math.log(ratio)
    if estimator == "k2":
        return math.log(ratio) ** 2 / 2
    return (ratio - 1) - math.log(ratio)


def softmax(logits: list[float]) -> list[float]:
    top = max(logits)
    weights = [math.exp(z - top) for z in logits]
    return [w / sum(weights) for w in weights]


def divergence(p: list[float], q: list[float]) -> float:
    """KL(p || q)."""
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


def reverse_gradient(logits: list[float], q: list[float]) -> list[float]:
    """d KL(softmax(logits) || q) / d logits_k = p_k (ln(p_k / q_k) - KL)."""
    p = softmax(logits)
    kl = divergence(p, q)
    return [a * (math.log(a / b) - kl) for a, b in zip(p, q, strict=True)]


def forward_gradient(logits: list[float], q: list[float]) -> list[float]:
    """d KL(q || softmax(logits)) / d logits_k = p_k - q_k."""
    return [a - b for a, b in zip(softmax(logits), q, strict=True)]


def logprob_and_entropy(logits: list[float], token: int, temperature: float) -> tuple[float, float]:
    """ln p(token) and the entropy in nats."""
    p = softmax([z / temperature for z in logits])
    return math.log(p[token]), -sum(a * math.log(a) for a in p if a > 0)


def adapted(coef: float, measured: list[float], target: float, gain: float) -> list[float]:
    """The coefficient of every step and of the one after the last, by arXiv:1909.08593 section 2.2."""
    coefs = [coef]
    for kl in measured:
        error = (kl - target) / target
        if error > 0.2:
            error = 0.2
        if error < -0.2:
            error = -0.2
        coefs.append(coefs[-1] * (1 + gain * error))
    return coefs

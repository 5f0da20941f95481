"""Accuracy intervals, pass@k and maj@k, in plain Python."""

import math
from collections import Counter
from collections.abc import Sequence

Z95 = 1.959963984540054  # two-sided 95% quantile of the normal distribution


def wilson_interval(successes: float, trials: int) -> tuple[float, float]:
    """Compute the 95% score interval of a proportion (Wilson 1927); (0, 1) without trials.

    Example:
        wilson_interval(50, 100) -> (0.4038, 0.5962).
    """
    if trials == 0:
        return 0.0, 1.0
    p = successes / trials
    denominator = 1.0 + Z95**2 / trials
    center = (p + Z95**2 / (2 * trials)) / denominator
    half = Z95 * math.sqrt(p * (1 - p) / trials + Z95**2 / (4 * trials**2)) / denominator
    return max(0.0, center - half), min(1.0, center + half)


def accuracy_interval(correct: Sequence[Sequence[bool]]) -> tuple[float, float]:
    """Compute the 95% interval of the mean accuracy, from one inner sequence per problem.

    With one sample per problem this is the Wilson interval. With several, samples of a problem are not independent, so
    it is the Wilson interval for the effective number of trials implied by the variance between problems.
    """
    means = [sum(samples) / len(samples) for samples in correct if samples]
    n = len(means)
    if n == 0:
        return 0.0, 1.0
    p = sum(means) / n
    if all(len(samples) == 1 for samples in correct) or n == 1 or p in (0.0, 1.0):
        return wilson_interval(p * n, n)
    variance = sum((m - p) ** 2 for m in means) / (n - 1) / n
    total = sum(len(samples) for samples in correct)
    effective = total if variance == 0 else min(total, max(1, round(p * (1 - p) / variance)))
    return wilson_interval(p * effective, effective)


def pass_at_k(num_samples: int, num_correct: int, k: int) -> float:
    """Estimate P(at least one of k samples is correct) without bias: 1 - C(n-c, k) / C(n, k) (arXiv:2107.03374 eq. 1).

    Example:
        pass_at_k(4, 1, 2) -> 0.5.
    """
    if not 1 <= k <= num_samples:
        raise ValueError(f"k must be in [1, {num_samples}], got {k}")
    return 1.0 - math.comb(num_samples - num_correct, k) / math.comb(num_samples, k)


def majority_vote(answers: Sequence[str | None], correct: Sequence[bool]) -> float:
    """Score the most frequent answer: 1 if correct, a share if tied. Completions without an answer do not vote."""
    votes = Counter(answer for answer in answers if answer is not None)
    if not votes:
        return 0.0
    top = max(votes.values())
    winners = {answer for answer, count in votes.items() if count == top}
    right = {answer for answer, ok in zip(answers, correct, strict=True) if ok}
    return len(winners & right) / len(winners)

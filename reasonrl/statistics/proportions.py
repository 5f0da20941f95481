"""95% intervals of accuracies and other means of values between 0 and 1."""

import math
from collections.abc import Sequence

Z95 = 1.959963984540054
"""Two-sided 95% quantile of the normal distribution."""


def wilson_interval(successes: float, trials: float) -> tuple[float, float]:
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


def mean_interval(values: Sequence[float], trials: int) -> tuple[float, float]:
    """Compute the 95% interval of the mean of one value per problem, each in [0, 1]; (0, 1) without values.

    It is the Wilson interval for the effective number of trials, which the variance between problems implies:
    n_eff = p (1 - p) / (s^2 / n). If all values are 0 or 1, n_eff = n. Unlike a bootstrap over problems, it has a
    width also if all problems agree.

    Args:
        trials: Upper limit of n_eff: the number of independent observations behind the values.
    """
    n = len(values)
    if n == 0:
        return 0.0, 1.0
    p = min(1.0, max(0.0, math.fsum(values) / n))
    if n == 1 or all(value in (0.0, 1.0) for value in values):
        return wilson_interval(p * n, n)
    variance = math.fsum((value - p) ** 2 for value in values) / (n - 1) / n
    effective = trials if variance == 0 else min(trials, max(1.0, p * (1 - p) / variance))
    return wilson_interval(p * effective, effective)


def standard_error(values: Sequence[float]) -> float:
    """Compute the standard error of the mean of ``values``; 0 for fewer than two."""
    n = len(values)
    if n < 2:
        return 0.0
    mean = math.fsum(values) / n
    return math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1) / n)


def accuracy_interval(correct: Sequence[Sequence[bool]]) -> tuple[float, float]:
    """Compute the 95% interval of the mean accuracy, from one inner sequence per problem.

    Samples of a problem are not independent, so several of them count as ``mean_interval`` says.
    """
    means = [sum(samples) / len(samples) for samples in correct if samples]
    return mean_interval(means, sum(map(len, correct)))

"""McNemar, sign flips, the paired bootstrap and the two-way layout by enumeration, in Python floats."""

import itertools
import math
from collections.abc import Sequence


def mcnemar(only_a: int, only_b: int) -> float:
    """Share of all assignments of the discordant problems that are at least as uneven."""
    n = only_a + only_b
    uneven = [abs(n - 2 * sum(side)) >= abs(only_a - only_b) for side in itertools.product((0, 1), repeat=n)]
    return sum(uneven) / len(uneven)


def sign_flip(differences: Sequence[float]) -> float:
    """Share of all signs that give at least as large a sum."""
    observed = abs(math.fsum(differences)) - 1e-12
    sums = [
        abs(math.fsum(s * d for s, d in zip(signs, differences, strict=True)))
        for signs in itertools.product((-1, 1), repeat=len(differences))
    ]
    return sum(value >= observed for value in sums) / len(sums)


def bootstrap_means(differences: Sequence[float]) -> list[float]:
    """The mean of every resample with replacement, sorted."""
    n = len(differences)
    return sorted(math.fsum(drawn) / n for drawn in itertools.product(differences, repeat=n))


def seeds_interval(a: Sequence[Sequence[float]], b: Sequence[Sequence[float]]) -> tuple[float, float]:
    """(variance of the difference of two settings, its degrees of freedom), sum by sum."""
    n = len(a[0])
    d = [_mean([run[i] for run in b]) - _mean([run[i] for run in a]) for i in range(n)]
    problems = _variance(d) / n
    between, interaction, degrees = 0.0, 0.0, 0
    for runs in (a, b):
        if len(runs) < 2:
            continue
        means = [_mean(run) for run in runs]
        grand = _mean(means)
        for i in range(n):
            column = _mean([run[i] for run in runs])
            interaction += sum((run[i] - mean - column + grand) ** 2 for run, mean in zip(runs, means, strict=True))
        between += sum((mean - grand) ** 2 for mean in means)
        degrees += len(runs) - 1
    each = 1 / len(a) + 1 / len(b)
    between *= each / degrees
    interaction *= each / (degrees * (n - 1) * n)
    total = problems + max(0.0, between - interaction)
    parts = problems**2 / (n - 1) + between**2 / degrees + interaction**2 / (degrees * (n - 1))
    return total, total**2 / parts if parts else math.inf


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _variance(values: Sequence[float]) -> float:
    mean = _mean(values)
    return math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1)

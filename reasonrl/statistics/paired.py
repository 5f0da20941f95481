"""The difference between two evaluations on the same problems: interval, test and power."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from reasonrl.statistics import student

Floats = NDArray[np.float64]
"""Accuracies: by problem, or by run (seed) and problem."""

Method = Literal["mcnemar", "sign-flip", "seeds", "blocks"]

LEVEL = 0.05
POWER = 0.8
RESAMPLES = 10_000
NORMAL_DF = 1e6
"""So many degrees of freedom stand for the normal distribution."""
SEED = 0
TOLERANCE = 1e-12


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """Mean accuracy of b minus that of a, with 95% interval and two-sided p-value.

    ``detectable`` is the smallest true difference that such a comparison finds (p < 0.05) in 80% of cases.
    """

    value: float
    low: float
    high: float
    p_value: float
    detectable: float
    method: Method

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "difference": self.value,
            "ci95": [self.low, self.high],
            "p_value": self.p_value,
            "detectable": self.detectable,
            "method": self.method,
        }


def compare_problems(a: Floats, b: Floats, *, resamples: int = RESAMPLES) -> Difference:
    """Compare two models, each by its accuracy ``[n]`` on the same n problems.

    The interval is the paired bootstrap over problems (percentiles). The test is McNemar's exact test if every problem
    has one sample, else its generalization: the sign of every problem's difference is flipped at random.
    """
    d = b - a
    is_binary = bool(np.isin(d, (-1.0, 0.0, 1.0)).all() and np.isin(a, (0.0, 1.0)).all())
    p_value = mcnemar(int((d < 0).sum()), int((d > 0).sum())) if is_binary else sign_flip(d, resamples)
    low, high = bootstrap(d, resamples)
    error = float(d.std(ddof=1)) / math.sqrt(len(d)) if len(d) > 1 else math.inf
    return Difference(
        value=float(d.mean()),
        low=low,
        high=high,
        p_value=p_value,
        detectable=_detectable(error, NORMAL_DF),
        method="mcnemar" if is_binary else "sign-flip",
    )


@lru_cache(maxsize=4096)
def mcnemar(only_a: int, only_b: int) -> float:
    """Compute McNemar's exact two-sided p-value from the problems that only one of the two solves.

    Under equal accuracies each of them is solved by either with probability 1/2.
    """
    n = only_a + only_b
    tail = sum(math.comb(n, i) for i in range(min(only_a, only_b) + 1))
    return min(1.0, 2 * tail / 2**n)


def sign_flip(d: Floats, resamples: int = RESAMPLES) -> float:
    """Estimate P(|mean of randomly signed d| >= |mean of d|), which is at least 1 / (resamples + 1)."""
    d = d[np.abs(d) > TOLERANCE]
    signs = np.random.default_rng(SEED).integers(0, 2, (resamples, len(d)), dtype=np.int8) * 2 - 1
    extreme = np.abs(signs @ d) >= abs(d.sum()) - TOLERANCE * max(1, len(d))
    return float((1 + extreme.sum()) / (1 + resamples))


def bootstrap(d: Floats, resamples: int = RESAMPLES) -> tuple[float, float]:
    """Compute the 95% percentile interval of the mean of ``d`` over resampled problems."""
    values, counts = np.unique(d, return_counts=True)
    # How often each value is drawn is multinomial: no need to draw every problem.
    drawn = np.random.default_rng(SEED).multinomial(len(d), counts / len(d), size=resamples)
    low, high = np.quantile(drawn @ values / len(d), (LEVEL / 2, 1 - LEVEL / 2))
    return float(low), float(high)


def compare_seeds(a: Floats, b: Floats) -> Difference:
    """Compare two settings by several runs each, ``[runs, n]``, all on the same n problems.

    Problems and runs are random: Var = s_d^2 / n + (s_m^2 - s_i^2 / n) (1/R_a + 1/R_b). s_d is over the problems'
    differences, s_m over the runs' means, s_i that of the interaction of run and problem; s_m and s_i are taken to be
    the same in both settings, and their term is at least 0. The interval is Student's, with Satterthwaite's degrees of
    freedom.
    """
    d = b.mean(0) - a.mean(0)
    n = len(d)
    problems = float(d.var(ddof=1)) / n if n > 1 else math.inf
    several = [runs for runs in (a, b) if len(runs) > 1]
    df = sum(len(runs) - 1 for runs in several)
    each = 1 / len(a) + 1 / len(b)
    means = each * sum(float(((runs.mean(1) - runs.mean()) ** 2).sum()) for runs in several) / df
    interaction = each * sum(_interaction(runs) for runs in several) / (df * max(1, n - 1)) / n
    variance = problems + max(0.0, means - interaction)
    parts = [(problems, n - 1), (means, df), (interaction, df * (n - 1))]
    return _student(float(d.mean()), variance, parts, "seeds")


def compare_blocks(differences: Sequence[float]) -> Difference:
    """Compare two settings by one difference per seed, each on problems of its own. The interval is Student's."""
    d = np.asarray(differences, dtype=np.float64)
    variance = float(d.var(ddof=1)) / len(d)
    return _student(float(d.mean()), variance, [(variance, len(d) - 1)], "blocks")


def _interaction(runs: Floats) -> float:
    """Sum the squares of the interaction of run and problem."""
    return float(((runs - runs.mean(1, keepdims=True) - runs.mean(0) + runs.mean()) ** 2).sum())


def _student(value: float, variance: float, parts: Sequence[tuple[float, int]], method: Method) -> Difference:
    """Make an interval; ``parts`` are the estimates behind ``variance``, each with its degrees of freedom."""
    error = math.sqrt(variance)
    if error <= TOLERANCE or math.isinf(error):
        is_known = error <= TOLERANCE
        low, high = (value, value) if is_known else (-1.0, 1.0)
        # All of n differences are alike: the sign test, 2 / 2^n.
        p_value = 2.0 ** -parts[0][1] if is_known and value else 1.0
        return Difference(value=value, low=low, high=high, p_value=p_value, detectable=error, method=method)
    df = variance**2 / sum(part**2 / max(1, degrees) for part, degrees in parts)
    half = student.quantile(1 - LEVEL / 2, df) * error
    return Difference(
        value=value,
        low=max(-1.0, value - half),
        high=min(1.0, value + half),
        p_value=student.two_sided_p(value / error, df),
        detectable=_detectable(error, df),
        method=method,
    )


def _detectable(error: float, df: float) -> float:
    """Find the difference whose test statistic exceeds the critical value with probability ``POWER``."""
    if error == 0.0 or math.isinf(error):
        return error
    return (student.quantile(1 - LEVEL / 2, df) + student.quantile(POWER, df)) * error

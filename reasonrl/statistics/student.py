"""Student's t distribution, by numerical integration."""

import math
from functools import lru_cache

import numpy as np

NODES, WEIGHTS = np.polynomial.legendre.leggauss(100)
WIDTH = 12.0
"""The density beyond this many units of 1/sqrt(df) past t is not worth integrating."""


def two_sided_p(t: float, df: float) -> float:
    """Compute P(|T| >= |t|) for ``df`` > 0 degrees of freedom.

    With T = sqrt(df) tan(a), it is 2 Gamma((df+1)/2) / (sqrt(pi) Gamma(df/2)) times the integral of cos(a)^(df-1).
    """
    start = math.atan(abs(t) / math.sqrt(df))
    end = min(math.pi / 2, start + WIDTH / math.sqrt(df))
    angles = start + (end - start) * (NODES + 1) / 2
    scale = 2 * math.exp(math.lgamma((df + 1) / 2) - math.lgamma(df / 2)) / math.sqrt(math.pi)
    area = (end - start) / 2 * float(WEIGHTS @ np.cos(angles) ** (df - 1))
    return min(1.0, scale * area)


@lru_cache(maxsize=4096)
def quantile(probability: float, df: float) -> float:
    """Find the t > 0 with P(T <= t) = ``probability``, which is in (0.5, 1)."""
    low, high = 0.0, 1.0
    while two_sided_p(high, df) > 2 * (1 - probability):
        high *= 2
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if two_sided_p(middle, df) > 2 * (1 - probability) else (low, middle)
    return (low + high) / 2

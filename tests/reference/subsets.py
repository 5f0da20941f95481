"""pass@k and maj@k by enumerating every subset of k samples, and the score interval by bisection."""

import itertools
import math
from collections.abc import Callable, Sequence

Z95 = 1.959963984540054


def pass_at_k(correct: Sequence[bool], k: int) -> float:
    """Share of the subsets with a correct sample."""
    subsets = list(itertools.combinations(correct, k))
    return sum(any(subset) for subset in subsets) / len(subsets)


def majority_at_k(answers: Sequence[str | None], correct: Sequence[bool], k: int) -> float:
    """Mean over the subsets: the share of correct ones among the answers with most votes."""
    right = {answer for answer, ok in zip(answers, correct, strict=True) if ok}
    scores = []
    for subset in itertools.combinations(answers, k):
        given = [answer for answer in subset if answer is not None]
        most = max((given.count(answer) for answer in given), default=0)
        winners = {answer for answer in given if given.count(answer) == most}
        scores.append(sum(winner in right for winner in winners) / len(winners) if winners else 0.0)
    return sum(scores) / len(scores)


def score_interval(p: float, trials: float) -> tuple[float, float]:
    """All q with |p - q| <= z sqrt(q (1 - q) / trials)."""

    def is_inside(q: float) -> bool:
        return abs(p - q) <= Z95 * math.sqrt(q * (1 - q) / trials)

    return _edge(is_inside, p, 0.0), _edge(is_inside, p, 1.0)


def _edge(is_inside: Callable[[float], bool], inside: float, outside: float) -> float:
    if is_inside(outside) and inside == outside:
        return outside
    for _ in range(60):
        middle = (inside + outside) / 2
        inside, outside = (middle, outside) if is_inside(middle) else (inside, middle)
    return inside


def mean_interval(values: Sequence[float], trials: int) -> tuple[float, float]:
    """The score interval for as many trials as have the variance of the mean that the values show."""
    n = len(values)
    p = sum(values) / n
    if n == 1 or set(values) <= {0.0, 1.0}:
        return score_interval(p, n)
    variance = sum((a - b) ** 2 for a, b in itertools.combinations(values, 2)) / (n * (n - 1)) / n
    return score_interval(p, trials if variance == 0 else min(trials, max(1.0, p * (1 - p) / variance)))

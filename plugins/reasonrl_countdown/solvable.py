"""Which of many problems have a solution, in floating point and all at once: what ``solve`` would take hours for.

Only one of ``a-b`` and ``b-a`` is tried, and values count whatever their sign: an expression over numbers that are not
negative has its sign from a subtraction, which can be turned round.

A problem called unsolvable is: the tolerance is far above any rounding error. Where that does not hold, or there are
too many problems to try, they are taken as solvable.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import combinations
from math import prod

import numpy as np

Column = np.ndarray

EXPRESSIONS = {1: 1, 2: 5, 3: 75, 4: 2_250, 5: 112_500, 6: 8_437_500}
"""Ways to combine so many numbers: a pair, an operation, and so on until one is left."""
BUDGET = 1_000_000_000
"""Expressions to try at most: several seconds."""
MAX_PRODUCT = 10**10
"""Of the numbers of a problem; differences of larger values lose too many digits."""
CHUNK = 8192
"""Problems tried together; of five numbers or more, of which each has many variants, far fewer."""
TOLERANCE = 1e-6
ZERO = 1e-9


def unsolvable(problems: Sequence[tuple[tuple[int, ...], int]]) -> set[int]:
    """Positions of the (numbers, target) that no expression using each number exactly once reaches."""
    by_count: dict[int, list[int]] = defaultdict(list)
    for position, (numbers, _) in enumerate(problems):
        if prod(numbers) <= MAX_PRODUCT:
            by_count[len(numbers)].append(position)
    found: set[int] = set()
    budget = BUDGET
    for count, positions in sorted(by_count.items()):
        budget -= EXPRESSIONS[count] * len(positions)
        if budget < 0:
            break
        size = CHUNK if count < 5 else CHUNK // 64
        for start in range(0, len(positions), size):
            chunk = np.array(positions[start : start + size])
            columns = list(np.array([problems[i][0] for i in chunk], dtype=np.float64).T)
            targets = np.array([problems[i][1] for i in chunk], dtype=np.float64)
            found.update(chunk[~_reach(columns, targets)].tolist())
    return found


def _reach(columns: Sequence[Column], targets: Column) -> Column:
    """Of each row of numbers, given as columns, whether it makes its target or the target's negative."""
    if len(columns) == 1:
        return np.abs(np.abs(columns[0]) - targets) <= TOLERANCE
    if len(columns) == 2:
        return _pair_reaches(columns[0], columns[1], targets)
    if len(columns) > 4:  # all at once: many calls for few rows would take longer
        steps = [smaller for pair in _pairs(columns) for smaller in _combined(columns, *pair)]
        together = [np.concatenate(parts) for parts in zip(*steps, strict=True)]
        reached = _reach(together, np.tile(targets, len(steps)))
        return np.any(reached.reshape(len(steps), -1), axis=0)
    reached = np.zeros(len(targets), dtype=bool)
    for pair in _pairs(columns):
        rows = np.flatnonzero(~reached)  # the others need not be looked at again
        for smaller in _combined([column[rows] for column in columns], *pair):
            reached[rows] |= _reach(smaller, targets[rows])
    return reached


def _pairs(columns: Sequence[Column]) -> Iterator[tuple[int, int]]:
    return combinations(range(len(columns)), 2)


def _combined(columns: Sequence[Column], left: int, right: int) -> Iterator[list[Column]]:
    """The columns with two of them replaced by their sum, difference, product, and quotients."""
    others = [column for i, column in enumerate(columns) if i not in (left, right)]
    a, b = columns[left], columns[right]
    for value in (a + b, a - b, a * b):
        yield [*others, value]
    for above, below in ((a, b), (b, a)):
        nowhere = np.full_like(above, np.nan)  # reaches nothing
        yield [*others, np.divide(above, below, out=nowhere, where=np.abs(below) > ZERO)]


def _pair_reaches(a: Column, b: Column, targets: Column) -> Column:
    """The same for two columns. Divisions are multiplied out, which is faster."""
    found = np.abs(np.abs(a + b) - targets) <= TOLERANCE
    found |= np.abs(np.abs(a - b) - targets) <= TOLERANCE
    a, b = np.abs(a), np.abs(b)
    found |= np.abs(a * b - targets) <= TOLERANCE
    found |= (np.abs(a - targets * b) <= TOLERANCE * b) & (b > ZERO)
    found |= (np.abs(b - targets * a) <= TOLERANCE * a) & (a > ZERO)
    return found

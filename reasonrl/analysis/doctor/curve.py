"""One metric over the steps of a run."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from statistics import median

WINDOW = 5
"""Steps that a trend must last and that a smoothed value looks back over: one odd batch is no trend."""


@dataclass(frozen=True, slots=True)
class Curve:
    """``values[i]`` belongs to ``steps[i]``; steps ascend; every value is finite."""

    steps: tuple[int, ...]
    values: tuple[float, ...]

    @classmethod
    def of(cls, pairs: Iterable[tuple[int, float]]) -> "Curve":
        """From (step, value) pairs in any order; of one step's values the last one counts."""
        known = sorted(dict(pairs).items())
        return cls(tuple(step for step, _ in known), tuple(value for _, value in known))

    def __len__(self) -> int:
        return len(self.values)

    def smoothed(self) -> tuple[float, ...]:
        """The median of the last ``WINDOW`` values up to each step."""
        return tuple(median(self.values[max(0, i - WINDOW + 1) : i + 1]) for i in range(len(self.values)))

    @property
    def first(self) -> float:
        """The median of the first ``WINDOW`` values."""
        return median(self.values[:WINDOW])

    @property
    def last(self) -> float:
        """The median of the last ``WINDOW`` values."""
        return median(self.values[-WINDOW:])

    def since(self, holds: Callable[[float], bool], at_least: int = WINDOW) -> int | None:
        """The step from which ``holds`` has been true of the smoothed curve until its end.

        None if that is not so at the end, or for fewer than ``at_least`` steps.
        """
        smooth = self.smoothed()
        begin = len(smooth)
        while begin > 0 and holds(smooth[begin - 1]):
            begin -= 1
        if begin == len(smooth):
            return None
        while begin > 0 and holds(self.values[begin - 1]):  # the median is late by half its window
            begin -= 1
        return self.steps[begin] if len(smooth) - begin >= at_least else None

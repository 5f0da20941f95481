"""One metric over the steps of a run."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from statistics import median

WINDOW = 5
"""Steps that a trend must last, and the window of the running median: a single outlier is not a trend."""


@dataclass(frozen=True, slots=True)
class Curve:
    """A metric over steps: ``values[i]`` belongs to ``steps[i]``; steps ascend; every value is finite."""

    steps: tuple[int, ...]
    values: tuple[float, ...]

    @classmethod
    def of(cls, pairs: Iterable[tuple[int, float]]) -> "Curve":
        """Build a curve from (step, value) pairs in any order; the last value of a step wins."""
        known = sorted(dict(pairs).items())
        return cls(tuple(step for step, _ in known), tuple(value for _, value in known))

    def __len__(self) -> int:
        return len(self.values)

    def smooth(self) -> tuple[float, ...]:
        """Return the running median over ``WINDOW`` steps."""
        return tuple(median(self.values[max(0, i - WINDOW + 1) : i + 1]) for i in range(len(self.values)))

    @property
    def first(self) -> float:
        """The median of the first ``WINDOW`` values."""
        return median(self.values[:WINDOW])

    @property
    def last(self) -> float:
        """The median of the last ``WINDOW`` values."""
        return median(self.values[-WINDOW:])

    def ends(self) -> tuple[float, float]:
        """The medians of the first and of the last ``WINDOW`` values; of each half where those would overlap."""
        count = max(1, min(WINDOW, len(self.values) // 2))
        return median(self.values[:count]), median(self.values[-count:])

    def since(self, holds: Callable[[float], bool], at_least: int = WINDOW) -> int | None:
        """Find the step from which ``holds`` is true of the smoothed curve up to its end.

        Returns None if it is false at the end, or true for fewer than ``at_least`` steps.
        """
        smooth = self.smooth()
        begin = len(smooth)
        while begin > 0 and holds(smooth[begin - 1]):
            begin -= 1
        if begin == len(smooth):
            return None
        while begin > 0 and holds(self.values[begin - 1]):  # the median lags by half its window
            begin -= 1
        return self.steps[begin] if len(smooth) - begin >= at_least else None

"""How long a run will still take, from the times measured so far."""

from collections import deque
from dataclasses import dataclass, field
from statistics import fmean

STEPS_REMEMBERED = 10
EVALUATIONS_REMEMBERED = 3


def evaluations_left(done: int, total: int, every: int) -> int:
    """Evaluations after step ``done``: each multiple of ``every`` (0 = none), and the last step."""
    if done >= total:
        return 0
    multiples = total // every - done // every if every > 0 else 0
    return multiples + (1 if every <= 0 or total % every else 0)


@dataclass
class Pace:
    """Told when something begins or ends; all times are seconds of one monotonic clock."""

    total_steps: int
    evaluation_every: int
    started: float
    steps_done: int = 0
    evaluated_at: int = 0
    _since: float = 0.0
    _evaluation_started: float = 0.0
    _excluded: float = 0.0
    _step_s: deque[float] = field(default_factory=lambda: deque(maxlen=STEPS_REMEMBERED))
    _evaluation_s: deque[float] = field(default_factory=lambda: deque(maxlen=EVALUATIONS_REMEMBERED))

    def __post_init__(self) -> None:
        self._since = self.started

    def evaluation_begins(self, now: float) -> None:
        self._evaluation_started = now

    def evaluated(self, step: int, now: float) -> None:
        """Step 0 restarts the clock of the first step: what came before was loading."""
        self.evaluated_at = step
        self._evaluation_s.append(now - self._evaluation_started)
        if self.steps_done == 0 and step == 0:
            self._since = now
        else:
            self._excluded += now - self._evaluation_started

    def stepped(self, step: int, now: float) -> None:
        """A step is everything since the one before (saving too), less its evaluation."""
        self.steps_done = step
        self._step_s.append(now - self._since - self._excluded)
        self._since, self._excluded = now, 0.0

    def left_s(self, now: float) -> float | None:
        """Seconds to the end: steps and evaluations left at the recent pace. None before the first step is done."""
        if not self._step_s:
            return None
        steps = (self.total_steps - self.steps_done) * fmean(self._step_s)
        done = max(self.steps_done, self.evaluated_at)
        evaluations = 0.0
        if self._evaluation_s:
            left = evaluations_left(done, self.total_steps, self.evaluation_every)
            evaluations = left * fmean(self._evaluation_s)
        return max(0.0, steps + evaluations - (now - self._since - self._excluded))

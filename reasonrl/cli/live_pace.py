"""Estimate the remaining time of a run."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import fmean

STEPS_REMEMBERED = 10
EVALUATIONS_REMEMBERED = 3


def evaluations_left(done: int, total: int, every: int) -> int:
    """Count the evaluations after step ``done``: every multiple of ``every`` (0 = none), and the last step."""
    if done >= total:
        return 0
    multiples = total // every - done // every if every > 0 else 0
    return multiples + (1 if every <= 0 or total % every else 0)


@dataclass
class Pace:
    """Estimates the remaining time from the start and end of steps and evaluations, in seconds of a monotonic clock."""

    total_steps: int
    evaluation_every: int
    started: float
    steps_done: int = 0
    _since: float = 0.0
    _evaluation_started: float | None = None
    _evaluated_share: float = 0.0
    _excluded: float = 0.0
    _step_s: deque[float] = field(default_factory=lambda: deque(maxlen=STEPS_REMEMBERED))
    _evaluation_s: deque[float] = field(default_factory=lambda: deque(maxlen=EVALUATIONS_REMEMBERED))

    def __post_init__(self) -> None:
        self._since = self.started

    def recall(self, step: int, step_s: Sequence[float], evaluation_s: Sequence[float]) -> None:
        """Start from the past of a run resumed after ``step``: durations of its steps and evaluations."""
        self.steps_done = step
        self._step_s.extend(step_s)
        self._evaluation_s.extend(evaluation_s)

    def begin_evaluation(self, now: float) -> None:
        self._evaluation_started, self._evaluated_share = now, 0.0

    def update_evaluation(self, share: float) -> None:
        """Record the share of the current evaluation's problems that is done."""
        self._evaluated_share = share

    def evaluated(self, now: float) -> None:
        """End an evaluation. Its time counts toward no step, nor does the loading before the one at step 0."""
        began, self._evaluation_started = self._evaluation_started, None
        if began is None:
            return
        self._evaluation_s.append(now - began)
        if self.steps_done == 0:
            self._since = now
        else:
            self._excluded += now - began

    def stepped(self, step: int, now: float) -> None:
        """End a step: the time since the previous one, saving included, without the evaluation between them."""
        if step > self.steps_done:  # else this step ran before the resume and is only evaluated now
            self._step_s.append(now - self._since - self._excluded)
        self.steps_done = step
        self._since, self._excluded = now, 0.0

    def left_s(self, now: float) -> float | None:
        """Estimate the seconds to the end at the recent pace. None before the first step is done."""
        running_s = self._running_evaluation_s(now)
        if running_s is None or (not self._step_s and self.steps_done < self.total_steps):
            return None
        steps = (self.total_steps - self.steps_done) * fmean(self._step_s or [0.0])
        evaluations = running_s
        if self._evaluation_s:
            left = evaluations_left(self.steps_done, self.total_steps, self.evaluation_every)
            evaluations += left * fmean(self._evaluation_s)
        since = self._evaluation_started if self._evaluation_started is not None else now
        begun = 0.0 if self.steps_done >= self.total_steps else since - self._since - self._excluded
        return max(0.0, steps + evaluations - begun)

    def _running_evaluation_s(self, now: float) -> float | None:
        """Estimate the rest of the current evaluation; 0 if there is none, None if unknown."""
        if self._evaluation_started is None:
            return 0.0
        taken = now - self._evaluation_started
        if self._evaluated_share > 0.0:
            return taken / self._evaluated_share - taken
        return max(0.0, fmean(self._evaluation_s) - taken) if self._evaluation_s else None

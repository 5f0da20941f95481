"""Progress of an evaluation, from what the rollout backend reports while it samples."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from reasonrl.evaluation.suites import Suite
from reasonrl.observability.reporter import EvaluationProgress


@dataclass
class EvaluationWatch:
    """Turns what a backend says while it samples, finished completions, into problems of the evaluation."""

    tell: Callable[[EvaluationProgress], None] | None = None
    _suite: Suite | None = None
    _before: int = 0
    _total: int = 0
    _ranks: int = 1
    _most: int = 0

    def finished(self, completions: int) -> None:
        """What a backend gets as ``RolloutContext.on_finished``. Heard during evaluations only."""
        if self._suite is None or self.tell is None:
            return
        # The share of this rank stands for all.
        problems = min(self._suite.problems, completions * self._ranks // self._suite.samples)
        self._most = problems = max(self._most, problems)  # later turns of conversations are counted anew
        self.tell(EvaluationProgress(suite=self._suite.name, done=self._before + problems, total=self._total))

    @contextmanager
    def of(self, suite: Suite, *, before: int, total: int, ranks: int) -> Iterator[None]:
        """Follow ``suite``, after ``before`` problems of other suites."""
        self._suite, self._before, self._total, self._ranks = suite, before, total, ranks
        self._most = 0
        self.finished(0)
        try:
            yield
        finally:
            self._suite = None

"""Evaluation suites on all ranks."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from reasonrl.contracts.protocols import RolloutBackend
from reasonrl.data.render import PromptRenderer
from reasonrl.evaluation.suites import Suite, SuiteResult, run_suite, summarize
from reasonrl.observability.reporter import EvaluationProgress
from reasonrl.trainer.ranks import Ranks


@dataclass
class EvaluationWatch:
    """Turns what a backend says while it samples, finished completions, into problems of the evaluation."""

    tell: Callable[[EvaluationProgress], None] | None = None
    _suite: Suite | None = None
    _before: int = 0
    _total: int = 0
    _ranks: int = 1

    def finished(self, completions: int) -> None:
        """What a backend gets as ``RolloutContext.on_finished``. Heard during evaluations only."""
        if self._suite is None or self.tell is None:
            return
        # The share of this rank stands for all.
        problems = min(self._suite.problems, completions * self._ranks // self._suite.samples)
        self.tell(EvaluationProgress(suite=self._suite.name, done=self._before + problems, total=self._total))

    @contextmanager
    def of(self, suite: Suite, *, before: int, total: int, ranks: int) -> Iterator[None]:
        """Follow ``suite``, after ``before`` problems of other suites."""
        self._suite, self._before, self._total, self._ranks = suite, before, total, ranks
        self.finished(0)
        try:
            yield
        finally:
            self._suite = None


def evaluate_suites(
    suites: Sequence[Suite],
    backend: RolloutBackend,
    renderer: PromptRenderer,
    ranks: Ranks,
    watch: EvaluationWatch,
) -> list[SuiteResult]:
    """Every suite, its problems dealt out over the ranks; all ranks get all results."""
    total = sum(suite.problems for suite in suites)
    results: list[SuiteResult] = []
    for number, suite in enumerate(suites):
        before = sum(earlier.problems for earlier in suites[:number])
        with watch.of(suite, before=before, total=total, ranks=ranks.size):
            results.append(_evaluate(suite, backend, renderer, ranks))
    return results


def _evaluate(suite: Suite, backend: RolloutBackend, renderer: PromptRenderer, ranks: Ranks) -> SuiteResult:
    mine = range(ranks.rank, len(suite.indices), ranks.size)
    with ranks.together():  # also a rank without a problem: a backend may be spread over ranks
        groups = run_suite(suite, backend, renderer, [suite.indices[place] for place in mine])
    gathered = ranks.gather(list(zip(mine, groups, strict=True)))
    ordered = [group for _, group in sorted(gathered, key=lambda pair: pair[0])]
    with ranks.together():
        return summarize(suite, ordered)


def suite_metrics(results: Sequence[SuiteResult]) -> dict[str, float]:
    """``eval/<suite>/accuracy``, ``behavior/<suite>/attempts`` and the like."""
    metrics: dict[str, float] = {}
    for result in results:
        metrics.update({f"eval/{result.name}/{key}": value for key, value in result.metrics.items()})
        metrics.update({f"behavior/{result.name}/{key}": value for key, value in result.behavior.items()})
        metrics[f"eval/{result.name}/accuracy_ci95_low"] = result.ci95[0]
        metrics[f"eval/{result.name}/accuracy_ci95_high"] = result.ci95[1]
    return metrics

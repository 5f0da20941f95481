"""Evaluation suites on all ranks."""

from collections.abc import Sequence

from reasonrl.contracts.protocols import RolloutBackend
from reasonrl.data.render import PromptRenderer
from reasonrl.evaluation.suites import Suite, SuiteResult, run_suite, summarize
from reasonrl.trainer.bundle import ModelBundle
from reasonrl.trainer.ranks import Ranks
from reasonrl.trainer.synced_backend import SyncedBackend
from reasonrl.trainer.watch import EvaluationWatch


class Evaluator:
    """Evaluates the policy of a run on ``suites``. Every rank calls it."""

    def __init__(self, suites: Sequence[Suite], backend: SyncedBackend, bundle: ModelBundle) -> None:
        self.suites = suites
        self._backend, self._bundle = backend, bundle

    def evaluate(self, policy_version: int) -> list[SuiteResult]:
        """Every suite, sampled from the present weights."""
        bundle, backend = self._bundle, self._backend.sync(policy_version)
        with bundle.accelerator.autocast():
            results = evaluate_suites(self.suites, backend, bundle.renderer, bundle.ranks, bundle.watch)
        self._backend.release()
        return results


def evaluate_suites(
    suites: Sequence[Suite], backend: RolloutBackend, renderer: PromptRenderer, ranks: Ranks, watch: EvaluationWatch
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
    groups = run_suite(suite, backend, renderer, [suite.indices[place] for place in mine], ranks)
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

"""Evaluation suites on all ranks."""

from collections.abc import Sequence
from typing import Any

from reasonrl.contracts.protocols import RolloutBackend
from reasonrl.evaluation.suites import Suite, SuiteResult, run_suite, summarise
from reasonrl.trainer.ranks import Ranks


def evaluate_suites(
    suites: Sequence[Suite], backend: RolloutBackend, tokenizer: Any, ranks: Ranks
) -> list[SuiteResult]:
    """Every suite, its problems dealt out over the ranks; all ranks get all results."""
    return [_evaluate(suite, backend, tokenizer, ranks) for suite in suites]


def _evaluate(suite: Suite, backend: RolloutBackend, tokenizer: Any, ranks: Ranks) -> SuiteResult:
    indices = list(range(ranks.rank, suite.problems, ranks.size))
    with ranks.together():  # also a rank without a problem: an engine may be spread over ranks
        groups = run_suite(suite, backend, tokenizer, indices)
    gathered = ranks.gather(list(zip(indices, groups, strict=True)))
    ordered = [group for _, group in sorted(gathered, key=lambda pair: pair[0])]
    return summarise(suite, ordered)


def suite_metrics(results: Sequence[SuiteResult]) -> dict[str, float]:
    """``eval/<suite>/accuracy``, ``behaviour/<suite>/attempts`` and the like."""
    metrics: dict[str, float] = {}
    for result in results:
        metrics.update({f"eval/{result.name}/{key}": value for key, value in result.metrics.items()})
        metrics.update({f"behaviour/{result.name}/{key}": value for key, value in result.behaviour.items()})
        metrics[f"eval/{result.name}/accuracy_ci95_low"] = result.ci95[0]
        metrics[f"eval/{result.name}/accuracy_ci95_high"] = result.ci95[1]
    return metrics

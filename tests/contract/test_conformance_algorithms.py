"""The kit's checks of algorithms: a good one passes all, a broken one fails its own check and no other."""

from typing import Any

import pytest
from support import kit_algorithms, kit_tasks

from reasonrl import AlgorithmSpec, MetricDef
from reasonrl.plugins import load_plugins
from reasonrl.testing import check_algorithm
from reasonrl.testing.algorithms import checks
from reasonrl.testing.checks import CheckResult

PLUGINS = load_plugins(environ={"REASONRL_PLUGINS": ""})
BROKEN: dict[str, dict[str, Any]] = {
    "has_a_summary": {"summary": " "},
    "options_have_help": {"config": kit_tasks.Silent},
    "defaults_are_valid": {"config": kit_tasks.Impossible},
    "needs_are_stated": {"needs": kit_algorithms.no_needs},
    "is_built": {"factory": kit_algorithms.NoLoss},
    "asks_only_for_what_it_declared": {"factory": kit_algorithms.Undeclared},
    "advantages_are_well_formed": {"factory": kit_algorithms.Everywhere},
    "the_loss_is_a_finite_scalar": {"factory": kit_algorithms.Vector},
    "gradients_are_finite": {"factory": kit_algorithms.Infinite},
    "what_is_masked_does_not_matter": {"factory": kit_algorithms.Unmasked},
    "padding_does_not_matter": {"factory": kit_algorithms.WidthScaled},
    "row_order_does_not_matter": {"factory": kit_algorithms.FirstRow},
    "microbatches_add_up": {"factory": kit_algorithms.LocalMean},
    "unscored_rows_take_no_part": {"factory": kit_algorithms.UnscoredToo},
    "rows_left_out_have_no_gradient": {"factory": kit_algorithms.Dishonest},
    "zero_advantages_teach_nothing": {"factory": kit_algorithms.Decaying},
    "inputs_are_left_alone": {"factory": kit_algorithms.InPlace},
    "global_randomness_is_left_alone": {"factory": kit_algorithms.Dicing},
    "metrics_are_declared": {"factory": kit_algorithms.Talkative},
    "learns_a_bandit": {"factory": kit_algorithms.Upwards},
}


def check(**changes: Any) -> list[CheckResult]:
    given = {
        "name": "reinforce",
        "summary": "Policy gradient.",
        "factory": kit_algorithms.Good,
        "needs": kit_algorithms.needs,
        "metrics": (MetricDef(key="loss/policy", unit="nats", meaning="Loss."),),
    }
    return check_algorithm(AlgorithmSpec(**{**given, **changes}), plugins=PLUGINS)


def test_a_good_algorithm_passes_every_check() -> None:
    results = check()
    assert [r.check for r in results] == checks.names == list(BROKEN)
    assert {r.status for r in results} == {"ok"}, [r for r in results if r.status != "ok"]


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_algorithm_fails_its_own_check_and_no_other(name: str) -> None:
    results = check(**BROKEN[name])
    assert [r.check for r in results if r.has_failed] == [name], [r for r in results if r.has_failed]

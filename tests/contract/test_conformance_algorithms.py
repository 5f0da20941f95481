"""The kit's checks of algorithms: a good one passes all, a broken one fails its own check and no other."""

from pathlib import Path
from typing import Any

import pytest
from support import kit_algorithms, kit_tasks
from typer.testing import CliRunner

from reasonrl import AlgorithmSpec, MetricDef
from reasonrl.cli.app import app
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
    "works_on_a_gpu": {"factory": kit_algorithms.HostBound},
    "state_is_restored": {"factory": kit_algorithms.Forgetful},
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


@pytest.mark.parametrize(
    ("factory", "said"),
    [
        (kit_algorithms.Forgetful, "load_state_dict does not restore what state_dict returned"),
        (kit_algorithms.Rounding, "computes another loss; state_dict lacks something"),
        (kit_algorithms.Counting, "computes another loss; state_dict lacks something"),
        (kit_algorithms.Unstored, "state_dict returned what JSON cannot hold"),
        (kit_algorithms.OneWay, "it has state_dict alone"),
    ],
)
def test_state_that_a_resumed_run_would_lose_is_found(factory: Any, said: str) -> None:
    (failed,) = [r for r in check(factory=factory) if r.has_failed]
    assert failed.check == "state_is_restored"
    assert said in failed.reason


def test_an_algorithm_with_state_passes_every_check() -> None:
    assert {r.status for r in check(factory=kit_algorithms.Adaptive)} == {"ok"}


FORGETFUL = """
from reasonrl import AlgorithmSpec, MetricDef, hookimpl
from support.kit_algorithms import Forgetful, needs


@hookimpl
def reasonrl_algorithms():
    loss = MetricDef(key="loss/policy", unit="nats", meaning="Loss.")
    yield AlgorithmSpec(name="forgetful", summary="Forgets.", factory=Forgetful, needs=needs, metrics=(loss,))
"""


def test_the_command_names_the_check(tmp_path: Path) -> None:
    (tmp_path / "forgets.py").write_text(FORGETFUL, encoding="utf-8")
    done = CliRunner().invoke(app, ["plugins", "check", str(tmp_path / "forgets.py")])
    assert done.exit_code == 1, done.output
    assert "state_is_restored" in done.output
    assert "load_state_dict does not restore what state_dict returned" in " ".join(done.output.split())

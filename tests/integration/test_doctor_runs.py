"""The doctor on runs that really ran: short ones are healthy, and each way to end is told."""

from pathlib import Path

import pytest
from support.small_recipes import PLUGIN, recipe, sft_recipe
from support.tiny_runs import RECIPES, tiny

import reasonrl
from reasonrl.analysis.doctor import Diagnosis, examine
from reasonrl.errors import ReasonRLError
from reasonrl.runs.start import sft


def look(run_dir: Path | None) -> Diagnosis:
    assert run_dir is not None
    return examine(run_dir)


@pytest.mark.parametrize("name", ["countdown_ppo", "countdown_grpo"])
def test_a_short_run_is_healthy(name: str, tiny_model: Path, tmp_path: Path) -> None:
    overrides = tiny(tiny_model, "trainer.steps=3", "checkpoint.every=1")
    diagnosis = look(reasonrl.run(RECIPES / f"{name}.yaml", overrides, run_dir=tmp_path / "run").run_dir)
    assert (diagnosis.state, diagnosis.findings) == ("completed", ())
    assert {"checkpoints", "metrics", "stale-weights", "entropy", "progress"} <= set(diagnosis.passed)
    # A random model earns nothing: all returns are equal, and there is no variance to explain.
    assert diagnosis.not_measured == ("critic", "sft-loss")


def test_a_short_imitation_is_healthy(tiny_model: Path, tmp_path: Path) -> None:
    path = sft_recipe(tmp_path, tiny_model)
    diagnosis = look(sft(path, run_dir=tmp_path / "run", plugin_files=[PLUGIN]).run_dir)
    assert (diagnosis.state, diagnosis.findings) == ("completed", ())
    assert "sft-loss" in diagnosis.passed


def test_a_run_that_failed_says_so(tiny_model: Path, tmp_path: Path) -> None:
    """Every completion is refused by its reward, which ends the run in its first step."""
    path = recipe(tmp_path, tiny_model, rewards={"flaky": {"fail_every": 1}})
    with pytest.raises(ReasonRLError, match="could not be scored"):
        reasonrl.run(path, run_dir=tmp_path / "run", plugins=[PLUGIN])
    (finding,) = look(tmp_path / "run").findings
    assert (finding.check, finding.severity) == ("state", "error")
    assert "before the first step finished" in finding.message

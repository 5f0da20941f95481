"""A run resumed with another length continues with its current learning rate."""

import logging
import shutil
from pathlib import Path
from typing import Any

import pytest
from support.resume_runs import SCRIPTED, assert_same_run, cut_back, metrics_without_times, resumable_recipe
from typer.testing import CliRunner

from reasonrl.cli.app import app

RATE = 0.01
RATES = {
    "constant": [1.0] * 8,
    "linear": [1.0, 0.75, 0.5, 0.25, 0.25, 0.1875, 0.125, 0.0625],
    "cosine": [1.0, 0.853553, 0.5, 0.146447, 0.146447, 0.125, 0.073223, 0.021447],
}


def cli(*arguments: object) -> Any:
    return CliRunner().invoke(app, [*map(str, arguments), "--plugin", SCRIPTED])


def short_run(folder: Path, model: Path, schedule: str, **sections: Any) -> Path:
    recipe = resumable_recipe(
        folder,
        model,
        rollout_backend={"name": "script"},
        optimizer={"learning_rate": RATE, "schedule": schedule},
        evaluation={"every": 0},
        checkpoint={"every": 1, "keep": 99},
        **sections,
    )
    done = cli("sft" if "sft" in sections else "train", recipe, "--run-dir", folder / "run")
    assert done.exit_code == 0, done.output
    return folder / "run"


def rates(run: Path) -> list[float]:
    return [line["optim/learning_rate"] / RATE for line in metrics_without_times(run)]


@pytest.mark.parametrize("schedule", list(RATES))
def test_a_finished_run_goes_on_for_as_many_steps_again(
    schedule: str, tiny_model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = short_run(tmp_path, tiny_model, schedule, trainer={"steps": 4, "prompts_per_step": 4})
    with caplog.at_level(logging.WARNING):
        done = cli("resume", run, "trainer.steps=8")
    assert done.exit_code == 0, done.output
    assert ("decays from its current" in caplog.text) == (schedule != "constant")
    assert rates(run) == pytest.approx(RATES[schedule], abs=1e-6)
    # Killed on the way, it goes on as if it had not been.
    again = cut_back(run, tmp_path / "again", 6)
    assert cli("resume", again).exit_code == 0
    assert_same_run(run, again)


def test_a_supervised_run_with_more_tokens(tiny_model: Path, tmp_path: Path) -> None:
    sections = {"algorithm": None, "critic": None, "trainer": None}
    sft = {"max_tokens": 200, "tokens_per_batch": 50}
    run = short_run(tmp_path, tiny_model, "linear", **sections, sft=sft)
    done = cli("resume", run)
    assert "to train longer: reasonrl resume " in done.output
    assert "sft.max_tokens=400" in done.output
    assert cli("resume", run, "sft.max_tokens=400").exit_code == 0
    assert rates(run) == pytest.approx(RATES["linear"], abs=1e-6)


def test_a_length_that_is_already_behind_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    run = short_run(tmp_path, tiny_model, "linear", trainer={"steps": 4, "prompts_per_step": 4})
    (run / "summary.json").unlink()  # as if it had been killed
    done = cli("resume", run, "trainer.steps=3")
    assert done.exit_code == 2
    assert "has already finished 4 steps, cannot shorten it to 3" in done.output


def test_a_finished_run_without_its_last_checkpoint_says_so(tiny_model: Path, tmp_path: Path) -> None:
    run = short_run(tmp_path, tiny_model, "constant", trainer={"steps": 4, "prompts_per_step": 4})
    whole = shutil.copytree(run, tmp_path / "whole")
    before = (run / "metrics.jsonl").read_bytes()
    for step in (4, 3):
        shutil.rmtree(run / "checkpoints" / f"step_{step:06d}")
    done = cli("resume", run)
    assert done.exit_code == 0
    assert "is finished: 4 steps, but the checkpoint of step 4 is missing" in done.output
    assert "the newest is step 2" in done.output
    assert (run / "metrics.jsonl").read_bytes() == before, "nothing is trained without being asked for"
    assert cli("resume", run, "trainer.steps=4").exit_code == 0
    assert_same_run(whole, run)
    shutil.rmtree(run / "checkpoints")
    done = cli("resume", run)
    assert (done.exit_code, "its checkpoints are missing" in done.output) == (0, True)
    assert "reasonrl resume " in done.output
    assert cli("resume", run, "trainer.steps=4").exit_code == 0
    assert_same_run(whole, run)

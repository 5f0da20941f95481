"""A checkpoint whose files are what its manifest says, but not what this version saves: one line that names it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from support.small_recipes import cli, recipe, sft_recipe

from reasonrl.rundir.folder import is_locked
from reasonrl.rundir.layout import LOCK, MANIFEST, TRAINER_STATE, step_dir, transcript_file
from reasonrl.rundir.manifest import write_manifest

STEPS = {"train": "trainer.steps=3", "sft": "sft.max_tokens=300"}
FOREIGN: dict[str, dict[str, Any]] = {
    "schema": {"schema": 99},
    "unknown key": {"later": 1},
    "no progress": {"progress": {}},
    "progress of text": {"progress.policy_version": "x"},
    "progress below zero": {"progress.consecutive_skips": -1},
    "progress of any size": {"progress.policy_version": 10**30},
    "progress of a float": {"progress.policy_version": 1.0},
    "plans": {"progress.plans": [[1, 2, 3]]},
    "identity": {"identity": {"recipe": 5}},
    "identity of a list": {"identity": {"recipe": [1]}},
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    folder = tmp_path_factory.mktemp("foreign")
    for kind, written in (("train", recipe(folder, tiny_model)), ("sft", sft_recipe(folder, tiny_model))):
        done = cli(kind, written, "--run-dir", folder / kind)
        assert done.exit_code == 0, done.output
    return folder


def change(checkpoint: Path, **changes: Any) -> None:
    state = json.loads((checkpoint / TRAINER_STATE).read_text())
    for key, value in changes.items():
        *outer, last = key.split(".")
        (state[outer[0]] if outer else state)[last] = value
    (checkpoint / TRAINER_STATE).write_text(json.dumps(state))
    (checkpoint / MANIFEST).unlink()
    write_manifest(checkpoint)


def contents(run: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in run.rglob("*") if path.is_file() and path.name != LOCK}


@pytest.mark.parametrize("name", FOREIGN)
@pytest.mark.parametrize("kind", STEPS)
def test_what_another_version_saved_is_refused_in_one_line(kind: str, name: str, runs: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(runs / kind, tmp_path / "run"))
    change(step_dir(run, 2), **FOREIGN[name])
    with (run / "metrics.jsonl").open("a") as metrics:
        metrics.write('{"step": 3}\n')  # as if a later step had run
    transcript = transcript_file(run, 3)
    transcript.parent.mkdir(exist_ok=True)
    transcript.write_text("{}\n")
    before = contents(run)
    assert run / "summary.json" in before
    done = cli("resume", run, STEPS[kind])
    assert not is_locked(run)
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert (done.exit_code, len(errors)) == (1, 1), done.output
    assert f"error: {step_dir(run, 2)}" in errors[0]
    assert "resume with the version of reasonrl that wrote it" in errors[0]
    assert "Traceback" not in done.output
    assert contents(run) == before


def test_a_run_that_is_refused_resumes_from_the_checkpoint_before(runs: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(runs / "train", tmp_path / "run"))
    change(step_dir(run, 2), later=1)
    assert "has unknown keys: later, expected schema 2" in cli("resume", run, STEPS["train"]).stderr
    shutil.rmtree(step_dir(run, 2))
    done = cli("resume", run, STEPS["train"])
    assert done.exit_code == 0, done.output


@pytest.mark.parametrize("examples", [["x"], [-1], [True], 5, [1, 2]])
def test_a_foreign_count_of_examples_changes_nothing(examples: object, runs: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(runs / "sft", tmp_path / "run"))
    change(step_dir(run, 2), **{"progress.examples": examples})
    before = contents(run)
    done = cli("resume", run, STEPS["sft"])
    assert done.exit_code == 1
    assert "Traceback" not in done.output
    assert contents(run) == before


def test_what_an_algorithm_raises_for_its_own_state_leaves_a_traceback(runs: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(runs / "train", tmp_path / "run"))
    change(step_dir(run, 2), **{"progress.algorithm": 5})
    done = cli("resume", run, STEPS["train"])
    assert done.exit_code == 2
    assert "sabotage" in done.stderr
    assert f"traceback: {run / 'traceback.txt'}" in done.stderr
    assert "in load_state_dict" in (run / "traceback.txt").read_text()
    assert not is_locked(run)

"""Files of a run that something else takes the place of while it trains, and copies that share them by hard links."""

import errno
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from support.processes import command
from support.small_recipes import PLUGIN, cli, recipe, summary_of
from support.tiny_runs import metrics_of

from reasonrl.rundir.folder import RunDir
from reasonrl.rundir.layout import RUN

SWAP = """
import os
import shutil
from reasonrl import hookimpl

@hookimpl
def reasonrl_step_finished(run, record, groups):
    path, done = run.run_dir / {name!r}, run.run_dir.with_name("done")
    if done.exists():
        return
    done.touch()
    if {make!r} == "fifo":
        path.unlink(missing_ok=True)
        os.mkfifo(path)
    elif {make!r} == "folder":
        path.mkdir()
    else:
        run.run_dir.rename(run.run_dir.with_name("renamed"))
        shutil.copytree(path, run.run_dir)
"""


def train_with(make: str, name: str, folder: Path, model: Path) -> tuple[Any, Path]:
    """A run in which ``name`` becomes a FIFO or a folder after the first step, or which becomes a copy of ``name``."""
    swap = folder / "swap.py"
    swap.write_text(SWAP.format(name=name, make=make), encoding="utf-8")
    run = folder / "run"
    words = ("train", recipe(folder, model), "--run-dir", run, "--plugin", PLUGIN, "--plugin", swap)
    return command(*words, cwd=folder), run


@pytest.mark.fault
@pytest.mark.parametrize(
    ("make", "name", "said"),
    [
        ("fifo", "metrics.jsonl", "is a FIFO, expected a file"),
        ("folder", "metrics.jsonl", "Is a directory"),
        ("fifo", "transcripts/step_000002.jsonl", "is a FIFO, expected a file"),
    ],
)
def test_a_run_whose_file_is_replaced_ends_with_its_last_step_saved(
    make: str, name: str, said: str, tiny_model: Path, tmp_path: Path
) -> None:
    done, run = train_with(make, name, tmp_path, tiny_model)
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error")]
    assert done.returncode == 1
    assert f"cannot write {run / name}: {said}" in line
    assert "saved: step_00000" in line
    (run / name).rmdir() if make == "folder" else (run / name).unlink()
    resumed = command("resume", run, cwd=tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    assert summary_of(run)["steps"] == 2


@pytest.mark.fault
def test_another_run_that_takes_the_place_of_one_that_trains_stays_as_it_is(tiny_model: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    assert cli("train", recipe(tmp_path, tiny_model), "--run-dir", other).exit_code == 0
    done, run = train_with("another run", str(other), tmp_path, tiny_model)
    assert done.returncode == 1
    assert f"error: the run folder {run} was renamed or deleted during the run" in done.stderr
    assert contents(run) == contents(other)
    assert command("resume", tmp_path / "renamed", cwd=tmp_path).returncode == 0
    assert summary_of(tmp_path / "renamed")["steps"] == 2


def contents(run: Path) -> dict[str, bytes]:
    return {str(path.relative_to(run)): path.read_bytes() for path in run.rglob("*") if path.is_file()}


def test_a_copy_by_hard_links_stays_as_it_is_when_the_run_is_resumed(tiny_model: Path, tmp_path: Path) -> None:
    run, copy = tmp_path / "run", tmp_path / "copy"
    assert cli("train", recipe(tmp_path, tiny_model), "--run-dir", run).exit_code == 0
    for step in ("transcripts/step_000003.jsonl", "evals/step_000003/held_out.jsonl"):
        (run / step).parent.mkdir(exist_ok=True)
        (run / step).write_text('{"of": "a step that was not saved"}\n')
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 3}\n')
    shutil.copytree(run, copy, copy_function=os.link)
    before = contents(copy)
    assert cli("resume", run, "trainer.steps=3").exit_code == 0
    assert contents(copy) == before
    assert cli("resume", copy, "trainer.steps=3").exit_code == 0
    rewards = [[line["train/reward"] for line in metrics_of(folder)] for folder in (run, copy)]
    assert rewards[0] == rewards[1]
    assert len(rewards[0]) == 3


def test_a_resume_that_fails_before_its_first_step_keeps_the_figures_of_the_run(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    assert cli("train", recipe(tmp_path, tiny_model), "--run-dir", run).exit_code == 0
    before = summary_of(run)
    write = RunDir.write_json

    def refuses(self: RunDir, name: str, data: Any) -> None:
        if name == RUN:
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), str(self.path / name))
        write(self, name, data)

    monkeypatch.setattr(RunDir, "write_json", refuses)
    assert cli("resume", run, "trainer.steps=3").exit_code == 1
    after = summary_of(run)
    assert after["outcome"] == "failed"
    assert after["eval"] == before["eval"]
    assert after["steps"] == 2
    assert after["wall_s"] > 0

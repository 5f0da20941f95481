"""A disk that fills up ends the run with one line; with room again it goes on exactly."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.processes import child
from support.resume_runs import assert_same_run, go, resumable_recipe, run_in_child, run_on_full_disk

from reasonrl.errors import TrainingError
from reasonrl.observability.reporter import Plan, SilentReporter
from reasonrl.rundir.checkpoints import find_newest_valid


def recipe_of(folder: Path, model: Path) -> Path:
    return resumable_recipe(
        folder, model, rollout_backend={"name": "script"}, trainer={"steps": 9, "prompts_per_step": 4}
    )


def error_of(run_dir: Path) -> str:
    return run_dir.with_name(f"{run_dir.name}.error").read_text()


@pytest.mark.fault
def test_files_that_cannot_grow_end_the_run_and_it_resumes_exactly(tiny_model: Path, tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path, tiny_model)
    go(recipe, tmp_path / "whole")
    checkpoint = tmp_path / "whole" / "checkpoints" / "step_000009"
    run = tmp_path / "run"
    for size in (
        0.5,
        0.9,
    ):  # of the largest file: within the optimizer's, and within the model's or behind it
        limit = int(size * (checkpoint / "optimizer.safetensors").stat().st_size)
        process = child(run_on_full_disk, None if run.exists() else recipe, run, limit)
        process.join(120)
        assert process.exitcode == 1
        assert "earlier checkpoints are kept" in error_of(run)
        assert find_newest_valid(run) is None
    go(None, run)
    assert_same_run(tmp_path / "whole", run)


@contextmanager
def small_disk(folder: Path, size: int) -> Iterator[bool]:
    """A file system of its own of ``size`` bytes; False where this user may mount none."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    may_mount = os.geteuid() == 0 and subprocess.run(command, capture_output=True, check=False).returncode == 0
    try:
        yield may_mount
    finally:
        if may_mount:
            # Lazily: tensors that were read from it are still mapped.
            subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.fault
def test_a_full_disk_ends_the_run_and_it_resumes_exactly(tiny_model: Path, tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path, tiny_model)
    go(recipe, tmp_path / "whole")
    one = sum(p.stat().st_size for p in (tmp_path / "whole" / "checkpoints" / "step_000009").iterdir())
    with small_disk(tmp_path / "disk", int(2.5 * one)) as is_small:
        run = tmp_path / "disk" / "run"
        if is_small:
            process = child(run_in_child, recipe, run)  # it keeps two; the third finds no room
            process.join(120)
            assert process.exitcode == 1
            assert "No space left on device" in error_of(run) or "earlier checkpoints are kept" in error_of(run)
            found = find_newest_valid(run)
            assert found is not None
            assert json.loads((found / "trainer_state.json").read_text())["step"] == 6
            subprocess.run(["mount", "-o", f"remount,size={10 * one}", str(tmp_path / "disk")], check=True)
            go(None, run)
        else:
            go(recipe, run)  # where nothing can be mounted the test above has to do
        shutil.copytree(run, tmp_path / "run")
    assert_same_run(tmp_path / "whole", tmp_path / "run")


FULL = {
    "metrics": ("metrics.jsonl", 1),
    "transcripts": ("transcripts/step_000002.jsonl", 2),
    "completions of an evaluation": ("evals/step_000002/held_out.jsonl", 2),
    "summary of an evaluation": ("evals/step_000002/.summary.json.tmp", 2),
    "summary": (".summary.json.tmp", 3),
}


class FillsUp(SilentReporter):
    """Puts a full device in place of a file of the run, once its folder is there."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def planned(self, plan: Plan) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.symlink_to("/dev/full")


@pytest.mark.fault
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_every_file_that_cannot_be_written_ends_the_run_in_a_line_and_it_resumes_exactly(
    tiny_model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    suites = {"every": 2, "suites": {"held_out": {"problems": 2}}}
    settings = {"evaluation": suites, "checkpoint": {"every": 99, "keep": 2}, "logging": {"report": False}}
    trainer = {"steps": 3, "prompts_per_step": 4}
    recipe = resumable_recipe(tmp_path, tiny_model, rollout_backend={"name": "script"}, trainer=trainer, **settings)
    go(recipe, tmp_path / "whole")
    for number, (name, saved) in enumerate(FULL.values()):
        caplog.clear()
        run = tmp_path / str(number)
        with pytest.raises(TrainingError, match="No space left on device; make room if the disk is full") as caught:
            go(recipe, run, reporter=FillsUp(run / name))
        assert str(run / name) in str(caught.value)
        assert caught.value.__notes__ == [f"saved: step_{saved:06d}", f"to continue: reasonrl resume {run}"]
        assert "Traceback" not in caplog.text
        (run / name).unlink(missing_ok=True)
        go(None, run)
        if name.startswith("transcripts"):  # the step is saved, its completions are not
            shutil.copy(tmp_path / "whole" / name, run / name)
        assert_same_run(tmp_path / "whole", run)

"""A backend that fails ends a run; what the run had done is saved, and resuming loses nothing."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from support.resume_runs import assert_same_run, resumable_recipe
from support.small_recipes import summary_of

from reasonrl.errors import CheckpointError, RolloutError
from reasonrl.runs import start
from reasonrl.runs.save import Checkpointer

SUPPORT = Path(__file__).parents[1] / "support"
PLUGINS = [str(SUPPORT / "scripted_plugin.py"), str(SUPPORT / "fragile_backend.py")]
SECTIONS: dict[str, Any] = {
    "trainer": {"steps": 4, "prompts_per_step": 4, "minibatches": 2},
    "evaluation": {"every": 2, "suites": {"held_out": {"problems": 2}}},
    "checkpoint": {"every": 0, "keep": 9},
}


def recipe_of(folder: Path, model: Path, fails: str, call: int) -> Path:
    rollout = {"name": "fragile", "while_exists": str(folder / "broken"), "fails": fails, "call": call}
    return resumable_recipe(folder, model, rollout_backend=rollout, **SECTIONS)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fails", "call", "saved"),
    [
        ("generate", 1, 0),  # the first evaluation
        ("generate", 2, 0),  # the first step
        ("generate", 4, 2),  # the evaluation after step 2
        ("generate", 5, 2),  # step 3
        ("sync", 1, 0),  # before the first evaluation
        ("sync", 2, 1),  # before step 2, with the weights of step 1
        ("sync", 3, 2),  # before the evaluation of step 2
    ],
)
def test_the_last_finished_step_is_saved(fails: str, call: int, saved: int, tiny_model: Path, tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path, tiny_model, fails, call)
    start.train(recipe, run_dir=tmp_path / "whole", plugin_files=PLUGINS)
    (tmp_path / "broken").touch()
    with pytest.raises(RolloutError, match="the backend has gone"):
        start.train(recipe, run_dir=tmp_path / "run", plugin_files=PLUGINS)
    assert [p.name for p in (tmp_path / "run" / "checkpoints").glob("step_*")] == [f"step_{saved:06d}"]
    assert summary_of(tmp_path / "run")["outcome"] == "failed"
    (tmp_path / "broken").unlink()
    start.resume(tmp_path / "run", plugin_files=PLUGINS)
    shutil.rmtree(tmp_path / "run" / "checkpoints" / f"step_{saved:06d}")  # the uninterrupted run has none
    assert_same_run(tmp_path / "whole", tmp_path / "run")


def test_a_full_disk_on_top_is_told_too(
    tiny_model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_room(self: Any, job: Any, state: Any, **options: Any) -> None:
        raise CheckpointError("cannot write the checkpoint: No space left on device")

    monkeypatch.setattr(Checkpointer, "save", no_room)
    (tmp_path / "broken").touch()
    recipe, run_dir = recipe_of(tmp_path, tiny_model, "generate", 2), tmp_path / "run"
    with pytest.raises(RolloutError, match="has gone"):
        start.train(recipe, run_dir=run_dir, plugin_files=PLUGINS)
    assert "No space left on device" in caplog.text
    assert summary_of(run_dir)["error"].endswith("the backend has gone")


def test_a_backend_that_refuses_its_options_leaves_no_folder(tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "broken").touch()
    with pytest.raises(RolloutError, match="the backend has gone"):
        start.train(recipe_of(tmp_path, tiny_model, "build", 1), run_dir=tmp_path / "run", plugin_files=PLUGINS)
    assert not (tmp_path / "run").exists()


def test_a_backend_that_does_not_start_leaves_a_summary(tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "broken").touch()
    with pytest.raises(RolloutError, match="the backend has gone"):
        start.train(recipe_of(tmp_path, tiny_model, "enter", 1), run_dir=tmp_path / "run", plugin_files=PLUGINS)
    assert summary_of(tmp_path / "run")["outcome"] == "failed"

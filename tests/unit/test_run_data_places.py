"""No command writes among the files of a run, where its checkpoint or evaluation would count as the run's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from reasonrl.errors import RecipeError
from reasonrl.export.model import export
from reasonrl.export.request import Request
from reasonrl.rundir.folder import refuse_unwritable
from reasonrl.rundir.layout import is_data_of_run
from reasonrl.runs.saved_evaluation import open_output


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    (folder / "checkpoints" / "step_000001").mkdir(parents=True)
    (folder / "run.json").write_text("{}")
    (tmp_path / "link").symlink_to(folder / "checkpoints", target_is_directory=True)
    (tmp_path / "loop").symlink_to("loop")
    return folder


@pytest.mark.parametrize(
    ("place", "is_data"),
    [
        ("run/checkpoints/step_000009", True),
        ("run/checkpoints/step_000001/deep/er", True),
        ("run/checkpoints", True),
        ("run/evals/step_000003", True),
        ("run/export/../checkpoints/x", True),
        ("link/step_000009", True),
        ("loop/step_000009", False),
        ("run/export/merged", False),
        ("run/model", False),
        ("checkpoints/step_000009", False),
    ],
)
def test_places_of_a_run(place: str, is_data: bool, run_dir: Path) -> None:
    assert is_data_of_run(run_dir.parent / place) == is_data


def test_every_command_that_makes_a_folder_refuses_them(run_dir: Path) -> None:
    target = run_dir / "checkpoints" / "step_000009"
    for write in (
        lambda: export(Request(run=run_dir, to=target)),
        lambda: open_output(target).__enter__(),
        lambda: refuse_unwritable("runs", target),
        lambda: refuse_unwritable(target, None),
    ):
        with pytest.raises(RecipeError, match=r"step_000009 lies among a run's own files"):
            write()
    assert [path.name for path in target.parent.iterdir()] == ["step_000001"]

"""A run that trains deletes no checkpoint under a command that reads it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.small_recipes import cli, recipe
from typer.testing import CliRunner, Result

from reasonrl.cli.app import app
from reasonrl.rundir import checkpoints
from reasonrl.rundir.checkpoints import list_saved_steps, new_checkpoint
from reasonrl.rundir.holds import claim, hold, holding
from reasonrl.rundir.layout import MANIFEST, step_dir

COMMANDS: dict[str, tuple[str, ...]] = {
    "eval": ("eval", "{run}", "--output", "{new}"),
    "generate": ("generate", "{run}"),
    "chat": ("chat", "{run}"),
    "chat with a checkpoint": ("chat", "{run}/checkpoints/step_000002"),
    "export": ("export", "{run}", "--to", "{new}"),
    "export of a step": ("export", "{run}", "--step", "2", "--to", "{new}"),
    "train on top of it": ("train", "{recipe}", "model.path={run}/checkpoints/step_000002", "--run-dir", "{new}"),
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("trained")
    written = recipe(folder, tiny_model)
    done = cli("train", written, "--run-dir", folder / "run")
    assert done.exit_code == 0, done.output
    return written, folder / "run"


def save_others(run: Path) -> None:
    """As the run does that trains meanwhile, with ``checkpoint.keep: 1``."""
    for _ in range(2):
        newest = list_saved_steps(run)[-1]
        with new_checkpoint(run, newest + 1, keep=1) as folder:
            for path in step_dir(run, newest).iterdir():
                if path.name != MANIFEST:
                    shutil.copy(path, folder)


def once(action: Callable[[], object]) -> Callable[[], object]:
    waiting = [action]
    return lambda: waiting.pop()() if waiting else None


def command(name: str, *more: str, **values: object) -> Result:
    words = [word.format(**values) for word in COMMANDS[name]] + list(more)
    return CliRunner().invoke(app, words) if words[0] == "export" else cli(*words)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_checkpoint_stays_while_a_command_reads_it(
    name: str, trained: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Path(shutil.copytree(trained[1], tmp_path / "run"))
    real, save = checkpoints.check_manifest, once(lambda: save_others(run))

    def check(folder: Path, *, deep: bool = True) -> str | None:
        found = real(folder, deep=deep)
        if deep:
            save()
        return found

    monkeypatch.setattr(checkpoints, "check_manifest", check)
    monkeypatch.setattr("reasonrl.export.source.check_manifest", check)
    done = command(name, run=run, new=tmp_path / "new", recipe=trained[0])
    assert done.exit_code == 0, done.output
    assert list_saved_steps(run) == [2, 4], "saved meanwhile"
    save_others(run)
    assert list_saved_steps(run) == [6], "it is free again"


@pytest.mark.parametrize("name", ["eval", "generate", "chat", "export"])
def test_a_checkpoint_that_is_deleted_before_it_is_read_is_replaced_by_the_newest(
    name: str, trained: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Path(shutil.copytree(trained[1], tmp_path / "run"))
    save = once(lambda: save_others(run))

    def hold_late(folder: Path) -> None:
        save()
        hold(folder)

    monkeypatch.setattr(checkpoints, "hold", hold_late)
    done = command(name, "--strict", run=run, new=tmp_path / "new")
    assert done.exit_code == 0, done.output
    assert "step_000002" not in done.output


def test_what_is_held_is_free_after_the_block(tmp_path: Path) -> None:
    def is_free(folder: Path) -> bool:
        with claim(folder) as answer:
            return answer

    folder = tmp_path / "step_000001"
    assert is_free(folder), "there is nothing"
    folder.mkdir()
    (folder / MANIFEST).write_text("{}")
    with holding():
        hold(folder)
        hold(tmp_path / "nowhere")
        assert not is_free(folder)
    assert is_free(folder)
    hold(folder)
    assert is_free(folder), "outside of a block nothing is held"


def test_a_manifest_that_cannot_be_written_is_held_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.open

    def refuse_writing(path: Any, flags: int, *more: Any, **named: Any) -> int:
        if Path(path).name == MANIFEST and flags & os.O_RDWR:
            raise PermissionError(13, "Permission denied")
        return real(path, flags, *more, **named)

    (tmp_path / MANIFEST).write_text("{}")
    (tmp_path / MANIFEST).chmod(0o444)
    monkeypatch.setattr("os.open", refuse_writing)  # of root too, to whom nothing is read-only
    with holding():
        hold(tmp_path)
        with claim(tmp_path) as is_free:
            assert not is_free
    with claim(tmp_path) as is_free:
        assert is_free


def test_a_checkpoint_in_deletion_keeps_no_command_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reasonrl.rundir.holds.WAIT_S", 0.05)
    (tmp_path / MANIFEST).write_text("{}")
    with claim(tmp_path) as is_free, holding():
        assert is_free
        hold(tmp_path)


def test_where_files_cannot_be_locked_everything_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(95, "Operation not supported")

    (tmp_path / MANIFEST).write_text("{}")
    monkeypatch.setattr("fcntl.flock", refuse)
    with holding():
        hold(tmp_path)
    with claim(tmp_path) as is_free:
        assert is_free

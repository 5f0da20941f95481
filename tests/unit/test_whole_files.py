"""A file is there whole or not at all, whatever ends its writing."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from reasonrl.errors import RecipeError, describe_os_error, usable_paths
from reasonrl.rundir import files

ENDS = (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), KeyboardInterrupt())


@pytest.mark.parametrize("error", ENDS, ids=["full disk", "Ctrl-C"])
@pytest.mark.parametrize("write", [files.write_atomic, files.write_new])
def test_half_a_file_is_removed(
    write: Callable[[Path, str], None], error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(path: Path, text: str) -> None:
        path.write_text(text[:4])
        raise error

    monkeypatch.setattr(files, "write_text", fails)
    with pytest.raises(type(error)):
        write(tmp_path / "report.html", "a report")
    assert list(tmp_path.iterdir()) == []


def test_a_replaced_file_stays_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files.write_atomic(tmp_path / "report.html", "old")
    monkeypatch.setattr(files, "sync_file", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        files.write_atomic(tmp_path / "report.html", "new")
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
    assert (tmp_path / "report.html").read_text() == "old"


def test_a_file_that_cannot_be_replaced_is_named(tmp_path: Path) -> None:
    (tmp_path / "run.json").mkdir()
    with pytest.raises(IsADirectoryError) as raised:
        files.write_atomic(tmp_path / "run.json", "new")
    assert raised.value.filename == str(tmp_path / "run.json")
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]


def test_a_new_file_replaces_none(tmp_path: Path) -> None:
    files.write_new(tmp_path / "recipe.yaml", "mine")
    with pytest.raises(FileExistsError):
        files.write_new(tmp_path / "recipe.yaml", "yours")
    assert (tmp_path / "recipe.yaml").read_text() == "mine"


def test_a_deleted_working_directory_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    expected = "the working directory was deleted; change to another one"
    with pytest.raises(RecipeError, match=f"^{expected}$"), usable_paths("recipe.yaml"):
        Path("run").absolute()
    with pytest.raises(FileNotFoundError) as raised:
        os.getcwd()
    assert describe_os_error(raised.value) == expected
    with pytest.raises(FileNotFoundError) as missing:
        (tmp_path / "missing").read_text()
    assert describe_os_error(missing.value).startswith(f"{tmp_path / 'missing'}: No such file")

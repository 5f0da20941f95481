"""A new folder is there whole or not at all, at whichever moment a signal comes and whatever was there before."""

import errno
import itertools
import os
import signal
from pathlib import Path

import pytest
from safetensors import SafetensorError
from support.signal_lines import signal_at

from reasonrl.errors import CheckpointError
from reasonrl.rundir import new_folder as module
from reasonrl.rundir.new_folder import explain_failure, new_folder
from reasonrl.signals import StopRequested, raise_signals

FILES = (module.__file__, __file__)


def write(target: Path) -> None:
    with new_folder(target) as folder:
        (folder / "model.bin").write_text("weights")
        (folder / "index.json").write_text("{}")


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@pytest.mark.parametrize("is_there", [False, True])
def test_a_signal_at_any_line_leaves_all_or_nothing(is_there: bool, tmp_path: Path) -> None:
    handler = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        for line in itertools.count():
            home = tmp_path / str(line)
            target = home / "new" / "export"
            (target if is_there else home).mkdir(parents=True)
            empty = names(home)
            with raise_signals(), signal_at(line, FILES) as sent:
                try:
                    write(target)
                except StopRequested:
                    whole = sorted([*empty, "new/export/index.json", "new/export/model.bin"])
                    whole = whole if is_there else ["new", "new/export", *whole]
                    assert names(home) in (empty, whole), f"line {line}"
            if not sent:
                break
        assert line > 20
    finally:
        signal.signal(signal.SIGTERM, handler)


def test_an_empty_folder_may_be_a_link_or_a_mount_point(tmp_path: Path) -> None:
    """Nothing is renamed onto it."""
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to("disk")
    inode = (tmp_path / "disk").stat().st_ino
    write(tmp_path / "link")
    assert names(tmp_path / "disk") == ["index.json", "model.bin"]
    assert (tmp_path / "disk").stat().st_ino == inode


def test_its_permissions_follow_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write(tmp_path / "export")
    finally:
        os.umask(before)
    assert (tmp_path / "export").stat().st_mode & 0o777 == 0o750


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left on device"), SafetensorError("No space left on device")]
)
def test_what_the_file_system_refuses_is_one_line(error: Exception, tmp_path: Path) -> None:
    with (
        pytest.raises(CheckpointError, match=r"^cannot write the export to .*: No space left on device; make room"),
        explain_failure(tmp_path / "new", what="export", flag="--to"),
        new_folder(tmp_path / "new"),
    ):
        raise error
    assert names(tmp_path) == []


def test_of_two_that_write_one_folder_the_second_fails(tmp_path: Path) -> None:
    target = tmp_path / "export"
    first, second = new_folder(target), new_folder(target)
    (second.__enter__() / "model.bin").write_text("second")
    (first.__enter__() / "model.bin").write_text("weights")
    first.__exit__(None, None, None)
    with pytest.raises(OSError, match="not empty"):
        second.__exit__(None, None, None)
    assert (target / "model.bin").read_text() == "weights"
    assert names(tmp_path) == ["export", "export/model.bin"]

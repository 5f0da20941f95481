"""A terminal or pipe that goes away ends no command; a full disk does."""

import io
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pytest

from reasonrl.cli.steady import SteadyFile, notice_if_gone, plausible_size


def closed_pipe() -> int:
    reader, writer = os.pipe()
    os.close(reader)
    return writer


def closed_terminal() -> int:
    ours, theirs = os.openpty()
    os.close(ours)
    return theirs


@pytest.mark.parametrize("gone", [closed_pipe, closed_terminal])
def test_what_nobody_can_read_is_dropped_and_told_once_during_a_run(
    gone: Callable[[], int], capfd: pytest.CaptureFixture[str]
) -> None:
    for expected in ("standard output is gone\n", ""):
        stream = io.TextIOWrapper(io.BufferedWriter(SteadyFile(gone(), "w")), write_through=True)
        with stream, notice_if_gone("standard output is gone") if expected else nullcontext():
            for _ in range(3):
                print("a line", file=stream, flush=True)
        assert capfd.readouterr().err == expected


def test_a_warning_that_nobody_can_read_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that is stopped by SIGHUP warns first, then saves."""
    stream = io.TextIOWrapper(io.BufferedWriter(SteadyFile(closed_terminal(), "w")), line_buffering=True)
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(logging.getLogger(), "handlers", [logging.StreamHandler(stream)])
    for _ in range(3):
        logging.getLogger("reasonrl").warning("saving step 3")
    stream.close()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_an_error() -> None:
    file = SteadyFile(os.open("/dev/full", os.O_WRONLY), "w")
    with file, pytest.raises(OSError, match="No space left"):
        file.write(b"a line")


@pytest.mark.parametrize("shape", ["{} | true", "{} >&-"])
def test_a_command_without_a_reader_ends_well(shape: str) -> None:
    command = shape.format(f"{sys.executable} -m reasonrl --help")
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0
    assert "Traceback" not in done.stderr
    assert "Exception" not in done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("command", ["--help", "--version", "recipes list", "plugins list --json", "doctor /nowhere"])
def test_a_result_on_a_full_disk_is_one_line_and_status_1(command: str) -> None:
    """Also what is small enough to be in a buffer until the end."""
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "reasonrl", *command.split()],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
        )
    expected = "/nowhere" if "doctor" in command else "standard output: No space left on device; check the file"
    assert len(done.stderr.splitlines()) == 1
    assert expected in done.stderr
    assert done.returncode == (2 if "doctor" in command else 1)


@pytest.mark.parametrize(("given", "read"), [("<&-", "''"), ("<<< $'caf\\xe9'", "'caf\ufffd\\n'")])
def test_standard_input_may_be_closed_or_hold_anything(given: str, read: str) -> None:
    code = "import sys; from reasonrl.cli.steady import steady_streams; steady_streams(); print(repr(sys.stdin.read()))"
    command = ["bash", "-c", f"{sys.executable} -X utf8 -c '{code}' {given}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.stderr) == (f"{read}\n", "")


@pytest.mark.parametrize(
    ("size", "is_kept"), [("80", True), ("999999", True), ("0", False), ("9" * 7, False), ("9" * 5000, False)]
)
def test_an_impossible_size_of_the_terminal_is_ignored(
    size: str, is_kept: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", size)
    monkeypatch.setenv("LINES", size)
    plausible_size()
    assert ("COLUMNS" in os.environ, "LINES" in os.environ) == (is_kept, is_kept)

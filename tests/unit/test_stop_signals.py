"""What a signal may interrupt, and what it leaves behind."""

import os
import pty
import signal
import subprocess
import sys

import pytest

from reasonrl.signals import StopRequested, StopSignals

TWICE = """
from reasonrl.signals import StopSignals
stop = StopSignals()
stop.defer()
stop.handle(2, None)
stop.handle(2, None)
"""


def test_the_second_signal_ends_at_once_and_shows_the_cursor() -> None:
    ours, its = pty.openpty()
    done = subprocess.run([sys.executable, "-c", TWICE], stdout=its, timeout=60)
    assert (done.returncode, os.read(ours, 100)) == (130, b"\x1b[?25h")
    os.close(ours)
    os.close(its)


def sample(stop: StopSignals, done: list[str], *, at: str) -> None:
    """A sync and samples, with a signal somewhere."""
    with stop.interruptible():
        with stop.deferred():
            stop.handle(signal.SIGTERM, None) if at == "sync" else None
            done.append("weights")
        stop.handle(signal.SIGTERM, None) if at == "samples" else None
        done.append("samples")


@pytest.mark.parametrize(("at", "expected"), [("sync", ["weights"]), ("samples", ["weights"])])
def test_a_sync_is_ended_first_and_samples_are_dropped(at: str, expected: list[str]) -> None:
    done: list[str] = []
    stop = StopSignals()
    stop.defer()
    with pytest.raises(StopRequested):
        sample(stop, done, at=at)
    assert done == expected


def test_without_a_signal_all_is_done() -> None:
    done: list[str] = []
    stop = StopSignals()
    stop.defer()
    sample(stop, done, at="")
    assert done == ["weights", "samples"]

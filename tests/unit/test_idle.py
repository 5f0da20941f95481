"""A process of several ends only once torch's communication threads are idle."""

from __future__ import annotations

import atexit
import hashlib
import math
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.processes import on_ranks

from reasonrl.runs import idle
from reasonrl.runs.processes import connect

by_state = pytest.mark.skipif(not idle.TASKS.is_dir(), reason="states of threads are read from /proc, on Linux")

SCRIPT = """
import hashlib, pathlib, sys, threading
from reasonrl.runs.idle import idle_at_exit

def work():
    started.set()
    hashlib.pbkdf2_hmac("sha256", b"", b"", 1_000_000)  # without the GIL, like torch's threads
    pathlib.Path(sys.argv[1]).touch()                   # with it

started = threading.Event()
threading.Thread(target=work, daemon=True).start()
started.wait()
if sys.argv[2] == "waits":
    idle_at_exit()
"""


@contextmanager
def busy_thread() -> Iterator[threading.Event]:
    """A thread that computes in C until the event is set."""
    started, ends = threading.Event(), threading.Event()

    def compute() -> None:
        started.set()
        while not ends.is_set():
            hashlib.pbkdf2_hmac("sha256", b"", b"", 20_000)

    thread = threading.Thread(target=compute)
    thread.start()
    started.wait()
    try:
        yield ends
    finally:
        ends.set()
        thread.join()


@by_state
def test_a_thread_that_computes_is_waited_for() -> None:
    with busy_thread() as ends:
        threading.Timer(0.3, ends.set).start()
        idle.wait_until_idle()
        assert ends.is_set()


@by_state
def test_it_is_not_waited_for_beyond_the_limit() -> None:
    with busy_thread() as ends:
        idle.wait_until_idle(limit=0.1)
        assert not ends.is_set()


def test_ctrl_c_ends_the_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python would print a traceback of it at that point."""

    def interrupt() -> bool:
        raise KeyboardInterrupt

    monkeypatch.setattr(idle, "is_busy", interrupt)
    idle.wait_until_idle(limit=math.inf)


def test_sleeping_threads_are_idle() -> None:
    with busy_thread() as ends:
        ends.set()
        sleeper = threading.Event()
        thread = threading.Thread(target=sleeper.wait)
        thread.start()
        idle.wait_until_idle(limit=math.inf)
        sleeper.set()
        thread.join()


@by_state
@pytest.mark.parametrize("how", ["waits", "ends"])
def test_python_finalizes_after_the_thread(how: str, tmp_path: Path) -> None:
    """Without the wait the thread never gets the GIL again."""
    done = subprocess.run([sys.executable, "-c", SCRIPT, tmp_path / "done", how], timeout=120, check=False)
    assert done.returncode == 0
    assert (tmp_path / "done").exists() == (how == "waits")


def test_processes_of_a_run_wait_and_a_single_one_does_not(tmp_path: Path) -> None:
    done = on_ranks(2, note_waiting, tmp_path)
    assert done.returncode == 0, done.stderr
    assert [(tmp_path / str(rank)).read_text() for rank in range(2)] == ["True"] * 2
    assert on_ranks(1, note_waiting, tmp_path).returncode == 0
    assert (tmp_path / "0").read_text() == "False"


def note_waiting(folder: Path) -> None:
    """On each process: whether it waits at its end."""
    registered: list[object] = []
    atexit.register = lambda function, *_, **__: registered.append(function)  # type: ignore[assignment]
    state = connect("cpu")
    (folder / str(state.process_index)).write_text(str(idle.wait_until_idle in registered))

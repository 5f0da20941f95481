"""End a process of several only once torch's communication threads are idle.

A collective operation of gloo is complete before its thread has dropped the tensors, for which it needs the GIL. On a
busy machine that can be much later. If Python finalizes in between, the thread aborts the process ("terminate called
without an active exception"); the launchers of other machines then wait minutes for it. torch does not tell when its
threads are done: this looks whether any of them runs or waits for a core.
"""

import atexit
import os
import threading
import time
from contextlib import suppress
from pathlib import Path

TASKS = Path("/proc/self/task")
POLL_S = 0.01
LOOKS = 3
"""So many times in a row all threads must be asleep: they are not looked at in the same moment."""
LIMIT_S = 10.0


def idle_at_exit() -> None:
    """Have this process wait for its threads before Python finalizes."""
    atexit.unregister(wait_until_idle)
    atexit.register(wait_until_idle)


def wait_until_idle(limit: float = LIMIT_S) -> None:
    """Wait until all other threads sleep, for ``limit`` seconds at most, or until Ctrl-C."""
    until, looks = time.monotonic() + limit, 0
    with suppress(KeyboardInterrupt):
        while looks < LOOKS and time.monotonic() < until:
            time.sleep(POLL_S)  # leaves the GIL to them
            looks = 0 if is_busy() else looks + 1


def is_busy() -> bool:
    """Whether another thread of this process runs or waits for a core; False where the system does not tell."""
    own = str(threading.get_native_id())
    return any(_state(task) == "R" for task in _tasks() if task != own)


def _tasks() -> list[str]:
    return os.listdir(TASKS) if TASKS.is_dir() else []


def _state(task: str) -> str:
    """``S`` for a thread that sleeps, ``R`` for one that could run; empty if it has ended."""
    try:
        return (TASKS / task / "stat").read_text().rpartition(") ")[2][:1]
    except OSError:
        return ""

"""Ending processes, whatever they did to get away."""

import contextlib
import os
import signal
import time
from pathlib import Path

SWEEPS = 500


def exit_descriptor(child: int) -> int:
    """A descriptor that becomes readable when a child ends; -1 where the system has none."""
    try:
        return os.pidfd_open(child)
    except (AttributeError, OSError):
        return -1


def has_ended(child: int) -> bool:
    """Whether a child has ended; it is still to be waited for."""
    return os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def end(child: int) -> tuple[int, float]:
    """End a child and all that it started; how it ended, and the seconds of processor time that it took."""
    kill_all(child)
    _, status, usage = os.wait4(child, 0)
    reap()
    return status, usage.ru_utime + usage.ru_stime


def kill_all(child: int = 0) -> None:
    """Kill every process of this sandbox but this one.

    The first process of a namespace kills all others in one go. Elsewhere those are sought that descend from this one,
    who adopts orphans.
    """
    if os.getpid() == 1:
        with contextlib.suppress(ProcessLookupError):
            os.kill(-1, signal.SIGKILL)
        return
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if child:
            os.killpg(child, signal.SIGKILL)
    with contextlib.suppress(ProcessLookupError):
        if child:
            os.kill(child, signal.SIGKILL)
    for _ in range(SWEEPS):
        found = descendants(os.getpid())
        if not found:
            return
        for pid in found:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)


def reap() -> None:
    """Wait for all children, which have been killed."""
    with contextlib.suppress(ChildProcessError):
        while True:
            os.waitpid(-1, 0)


def end_tree(child: int, patience: float = 10.0) -> None:
    """End a child and its descendants, and wait for all of them; this process adopts orphans."""
    deadline = time.monotonic() + patience
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(child, signal.SIGKILL)
    with contextlib.suppress(ChildProcessError):
        os.waitpid(child, 0)  # the first process of a namespace outlives all others in it
    while time.monotonic() < deadline:
        try:
            if os.waitpid(-1, os.WNOHANG) != (0, 0):
                continue
        except ChildProcessError:
            return
        for pid in descendants(os.getpid()):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.001)


def descendants(root: int) -> set[int]:
    """The living descendants of a process. Linux; elsewhere none are seen."""
    parents: dict[int, int] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, ValueError, IndexError):  # gone meanwhile
            state, parent = (folder / "stat").read_text(errors="replace").rpartition(")")[2].split()[:2]
            if state not in "ZX":
                parents[int(folder.name)] = int(parent)
    below, found = {root}, set[int]()
    while below:
        below = {pid for pid, parent in parents.items() if parent in below and pid not in found}
        found |= below
    return found


def tasks_of(user: int) -> int:
    """The threads that a user has; 0 where /proc does not tell."""
    count = 0
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if folder.stat().st_uid == user:
                count += len(os.listdir(folder / "task"))
    return count

"""The process between trainer and worker: it adopts whatever the worker's descendants leave behind, and ends it.

A worker may die at any moment, and a descendant may leave its session, its process group and its environment. On Linux
an orphan goes to the closest ancestor that asked for orphans, which is this one; so nothing gets past the guard.
"""

import contextlib
import ctypes
import os
import signal
import sys
from pathlib import Path
from typing import NoReturn

PDEATHSIG, CHILD_SUBREAPER = 1, 36
SWEEPS = 200


def prctl(option: int, value: int) -> None:
    """Set an attribute of this process; does nothing where there is none such."""
    with contextlib.suppress(OSError, AttributeError):  # Linux only
        ctypes.CDLL(None).prctl(option, value)


def stay_behind(trainer: int, forwarded: signal.Signals) -> int:
    """Fork. Return in the child, and be its guard in the parent. Called in a fresh interpreter, before any thread.

    Args:
        trainer: the process whose end is this one's.
        forwarded: a signal that the guard passes on to the child.

    Returns:
        The process whose end is the child's: the guard; the trainer where there is none.
    """
    if sys.platform != "linux":
        return trainer
    guard = os.getpid()
    prctl(CHILD_SUBREAPER, 1)
    signal.pthread_sigmask(signal.SIG_BLOCK, {forwarded, signal.SIGTERM})
    child = os.fork()
    if child:
        _guard(child, trainer, forwarded)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})  # the other one as soon as it is handled
    return guard


def _guard(child: int, trainer: int, forwarded: signal.Signals) -> NoReturn:
    """Wait for the child, end its descendants, and end as it did."""
    os.closerange(3, 1024)  # the worker's connections must close when the worker ends
    signal.signal(forwarded, lambda *_: _send(child, forwarded))
    signal.signal(signal.SIGTERM, lambda *_: _end(signal.SIGKILL))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {forwarded, signal.SIGTERM})
    prctl(PDEATHSIG, signal.SIGTERM)
    if os.getppid() != trainer:
        _end(signal.SIGKILL)
    while True:
        ended, status = os.wait()
        if ended == child:
            _end(os.waitstatus_to_exitcode(status))


def _end(code: int) -> NoReturn:
    """End all descendants, then this process: with ``code``, or by the signal -``code``."""
    kill_descendants(os.getpid())
    if code < 0:
        with contextlib.suppress(OSError, ValueError):  # those that cannot be handled need no default
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code if code >= 0 else 128 - code)


def kill_descendants(root: int) -> None:
    """Kill every living descendant of ``root``, those that are forked meanwhile included. Needs /proc."""
    for _ in range(SWEEPS):
        found = descendants(root)
        for pid in found:
            _send(pid, signal.SIGKILL)
        if not found:
            return


def descendants(root: int) -> set[int]:
    """The living descendants of ``root``."""
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


def _send(pid: int, signum: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, signum)

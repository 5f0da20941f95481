"""Keep a checkpoint that a command reads from being deleted as old by the run that trains: a lock on its manifest."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from reasonrl.rundir.layout import MANIFEST

try:
    import fcntl
except ImportError:  # Windows, which deletes no file that is open
    fcntl = None  # type: ignore[assignment]

WAIT_S = 1.0
"""For a run that is deleting the checkpoint, which takes a moment."""
_handles: ContextVar[list[int] | None] = ContextVar("handles", default=None)


@contextmanager
def holding() -> Iterator[None]:
    """Keep the checkpoints that are passed to ``hold`` inside until the end of the block."""
    handles: list[int] = []
    token = _handles.set(handles)
    try:
        yield
    finally:
        _handles.reset(token)
        for handle in handles:
            os.close(handle)


def hold(checkpoint: Path) -> None:
    """Keep a checkpoint from being deleted until the end of the block of ``holding``, or do nothing outside of one.

    Whether it is still there is known afterwards only. Nothing is kept where files cannot be locked.
    """
    handles = _handles.get()
    if handles is None or fcntl is None:
        return
    try:
        handle = os.open(checkpoint / MANIFEST, os.O_RDONLY | os.O_NONBLOCK)  # a FIFO in its place would wait forever
    except OSError:
        return
    handles.append(handle)
    deadline = time.monotonic() + WAIT_S
    while not _lock(handle, fcntl.LOCK_SH) and time.monotonic() < deadline:
        time.sleep(0.01)


@contextmanager
def claim(checkpoint: Path) -> Iterator[bool]:
    """Whether a checkpoint is free; it cannot be held inside the block. True where files cannot be locked."""
    if fcntl is None:
        yield True
        return
    handle = _open_to_claim(checkpoint / MANIFEST)
    if handle is None:
        yield True
        return
    try:
        yield _lock(handle, fcntl.LOCK_EX)
    finally:
        os.close(handle)


def _open_to_claim(manifest: Path) -> int | None:
    for kind in (os.O_RDWR, os.O_RDONLY):  # network file systems ask for writing, which the file may forbid
        try:
            return os.open(manifest, kind | os.O_NONBLOCK)
        except OSError:
            pass
    return None


def _lock(handle: int, kind: int) -> bool:
    try:
        fcntl.flock(handle, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        pass
    return True

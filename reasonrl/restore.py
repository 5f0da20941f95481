"""Put back what a plugin's code may change of the process without meaning to, after every call."""

import builtins
import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any

from reasonrl.signals import SIGNALS

_local = threading.local()


def run_beside() -> None:
    """Restore nothing in this thread from now on: it runs beside another one, which may itself change all that."""
    _local.is_beside = True


@contextlib.contextmanager
def restored() -> Iterator[None]:
    """Restore folder, standard streams, signal handlers, alarm, recursion limit and built-ins behind the block."""
    if getattr(_local, "is_beside", False):
        yield
        return
    folder, streams, functions = _folder(), (sys.stdout, sys.stderr), dict(builtins.__dict__)
    handlers = {signum: signal.getsignal(signum) for signum in SIGNALS}
    depth, alarm = sys.getrecursionlimit(), _alarm()
    try:
        yield
    finally:
        if builtins.__dict__ != functions:
            builtins.__dict__.update(functions)
        if folder and _folder() != folder:
            with contextlib.suppress(OSError):  # it was deleted
                os.chdir(folder)
        _restore_streams(*streams)
        _restore_handlers(handlers)
        sys.setrecursionlimit(depth)
        if alarm == 0.0 != _alarm():  # it would end the process later
            signal.setitimer(signal.ITIMER_REAL, 0)


def _alarm() -> float:
    """Seconds to the next SIGALRM; 0 = none."""
    return signal.getitimer(signal.ITIMER_REAL)[0] if hasattr(signal, "getitimer") else 0.0


def _folder() -> str:
    try:
        return os.getcwd()
    except OSError:  # it was deleted
        return ""


def _restore_streams(out: Any, err: Any) -> None:
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:  # the next file that is opened would take its place
            null = os.open(os.devnull, os.O_RDWR)
            if null != descriptor:
                os.dup2(null, descriptor)
                os.close(null)
    for name, stream in (("stdout", out), ("stderr", err)):
        is_closed = getattr(stream, "closed", False)
        setattr(sys, name, open(os.devnull, "w", encoding="utf-8") if is_closed else stream)  # noqa: SIM115


def _restore_handlers(handlers: dict[signal.Signals, Any]) -> None:
    if threading.current_thread() is not threading.main_thread():
        return
    for signum, handler in handlers.items():
        if handler is not None and signal.getsignal(signum) != handler:
            signal.signal(signum, handler)

"""The settings of a process that a plugin's code may change without meaning to."""

import builtins
import contextlib
import gc
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from reasonrl.signals import SIGNALS

UNKNOWN = object()


@dataclass(frozen=True, slots=True)
class Setting:
    """How a setting is read and written. ``fresh``: its value in a new process, if that is known."""

    name: str
    read: Callable[[], Any]
    write: Callable[[Any], object]
    fresh: Any = UNKNOWN


def _read_folder() -> str:
    try:
        return os.getcwd()
    except OSError:  # it was deleted
        return ""


def _change_folder(folder: str) -> None:
    with contextlib.suppress(OSError):  # it was deleted
        os.chdir(folder)


def _has_alarm() -> bool:
    return hasattr(signal, "getitimer") and signal.getitimer(signal.ITIMER_REAL)[0] > 0


def _stop_alarm(is_wanted: bool) -> None:
    if not is_wanted:  # it would end the process later
        signal.setitimer(signal.ITIMER_REAL, 0)


def _read_handlers() -> dict[int, Any]:
    return {signum: signal.getsignal(signum) for signum in SIGNALS}


def _set_handlers(handlers: Mapping[int, Any]) -> None:
    if threading.current_thread() is not threading.main_thread():
        return
    for signum, handler in handlers.items():
        if handler is not None and signal.getsignal(signum) != handler:
            signal.signal(signum, handler)


def _read_blocked() -> set[Any]:
    return signal.pthread_sigmask(signal.SIG_BLOCK, ()) if hasattr(signal, "pthread_sigmask") else set()


def _set_blocked(signals: set[Any]) -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, signals)


def _collect(is_wanted: bool) -> None:
    (gc.enable if is_wanted else gc.disable)()


PROCESS_SETTINGS = (
    Setting("built-in functions", lambda: dict(vars(builtins)), vars(builtins).update),
    Setting("working directory", _read_folder, _change_folder),
    Setting("signal handlers", _read_handlers, _set_handlers),
    Setting("blocked signals", _read_blocked, _set_blocked),
    Setting("recursion limit", sys.getrecursionlimit, sys.setrecursionlimit),
    Setting("alarm", _has_alarm, _stop_alarm),
    Setting("garbage collection", gc.isenabled, _collect),
    Setting("logging.disable", lambda: logging.root.manager.disable, logging.disable),
)
"""Restored without a warning, because results do not depend on them."""

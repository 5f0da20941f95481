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
_TIMERS = (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF) if hasattr(signal, "getitimer") else ()


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


def _running_timers() -> set[int]:
    return {timer for timer in _TIMERS if signal.getitimer(timer)[0] > 0}


def _stop_timers(wanted: set[int]) -> None:
    for timer in _running_timers() - wanted:  # its signal would end the process later
        signal.setitimer(timer, 0)


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
    Setting("timers", _running_timers, _stop_timers),
    Setting("trace function", sys.gettrace, sys.settrace),
    Setting("profile function", sys.getprofile, sys.setprofile),
    Setting("digits of an integer as text", sys.get_int_max_str_digits, sys.set_int_max_str_digits),
    Setting("garbage collection", gc.isenabled, _collect),
    Setting("logging.disable", lambda: logging.root.manager.disable, logging.disable),
)
"""Restored without a warning, because results do not depend on them."""

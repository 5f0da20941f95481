"""A limit on the time of one computation, where the platform and the thread can interrupt it."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Literal

AGAIN_S = 0.5
"""Seconds between repeated interruptions: code may catch one, and Python drops what is raised in a ``__del__``."""


class TooSlowError(Exception):
    """The time was up."""


class _TimeUpError(BaseException):
    """Raised where the time is up. No Exception, so that a loop which retries after any error ends."""


_AROUND = (__file__, contextlib.__file__)
"""Code between the block and its caller, where nothing would catch it."""


@contextlib.contextmanager
def limited_to(seconds: float, time: Literal["processor", "all"] = "processor") -> Iterator[None]:
    """Raise TooSlowError after so many seconds in the block; at its end, if it caught every interruption.

    Without effect outside the main thread and on Windows. Compiled code is interrupted when it returns.

    Args:
        time: The processor's time, whatever else the machine does; or all time, which also ends a block that waits.
    """
    if not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        yield
        return
    signum, timer = (
        (signal.SIGVTALRM, signal.ITIMER_VIRTUAL) if time == "processor" else (signal.SIGALRM, signal.ITIMER_REAL)
    )
    is_late = is_over = False

    def interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal is_late
        if not is_over and (frame is None or frame.f_code.co_filename not in _AROUND):
            is_late = True
            raise _TimeUpError

    before = signal.signal(signum, interrupt)
    left, interval = signal.setitimer(timer, seconds, AGAIN_S)
    try:
        try:
            with contextlib.suppress(_TimeUpError):
                yield
        except Exception:  # may be what code made of the interruption
            if not is_late:
                raise
        if is_late:
            raise TooSlowError(f"took longer than {seconds:g} s")
    finally:
        is_over = True
        signal.setitimer(timer, left, interval)
        signal.signal(signum, before)

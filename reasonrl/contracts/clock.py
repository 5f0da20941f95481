"""A limit on the time of one computation, where the platform and the thread can interrupt it."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Literal


class TooSlowError(Exception):
    """The time was up."""


class _TimeUpError(BaseException):
    """Raised where the time is up. No Exception, so that a loop which retries after any error ends."""


@contextlib.contextmanager
def limited_to(seconds: float, time: Literal["processor", "all"] = "processor") -> Iterator[None]:
    """Raise TooSlowError after so many seconds in the block.

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

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise _TimeUpError

    before = signal.signal(signum, interrupt)
    left, interval = signal.setitimer(timer, seconds)
    try:
        yield
    except _TimeUpError:
        raise TooSlowError(f"took longer than {seconds:g} s") from None
    finally:
        signal.setitimer(timer, left, interval)
        signal.signal(signum, before)

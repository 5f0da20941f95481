"""A limit on the time of one computation, where the platform and the thread can interrupt it."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType


class TooSlowError(Exception):
    """The time was up."""


@contextlib.contextmanager
def limited_to(seconds: float) -> Iterator[None]:
    """Raise TooSlowError in the block after so many seconds of processor time, whatever else the machine does.

    Outside of the main thread, and on Windows, there is no limit.
    """
    if not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise TooSlowError(f"took longer than {seconds:g} s")

    before = signal.signal(signal.SIGVTALRM, interrupt)
    left, interval = signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, left, interval)
        signal.signal(signal.SIGVTALRM, before)

"""Signals that stop a run: the first one asks for a stop that loses nothing, a second one ends the process at once.

Those of a scheduler or of a closed terminal are repeated, and announce a SIGTERM: they never end the process at once.
"""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

URGENT = (signal.SIGINT, signal.SIGTERM)
"""Always handled; two of these, or of SIGQUIT, end the process at once."""
_MORE = ("SIGQUIT", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU")  # not all of them everywhere
GENTLE = tuple(getattr(signal, name) for name in _MORE[1:] if hasattr(signal, name))
SIGNALS = (*URGENT, *(getattr(signal, name) for name in _MORE if hasattr(signal, name)))


class StopRequested(KeyboardInterrupt):
    """A signal asked for the end. A KeyboardInterrupt, so that nothing that catches mistakes catches it.

    A run has saved its state, if it had any, when this reaches the caller.
    """

    def __init__(self, signum: int) -> None:
        super().__init__(f"stopped by {signal.Signals(signum).name}")
        self.signum = signum

    @property
    def exit_code(self) -> int:
        """As a shell reports it: 130 after SIGINT, 143 after SIGTERM, 129 after SIGHUP."""
        return 128 + self.signum


class CtrlC(KeyboardInterrupt):
    """Somebody pressed Ctrl-C while a command runs; a plugin that raises KeyboardInterrupt itself raises no such."""


_held: list[int] | None = None
"""The signals that came during a block that nothing may interrupt; None outside of one."""


_first = 0
"""The signal that ends the command, whatever comes after it; 0 = none so far."""
_is_ending = False


def raise_stop(signum: int, frame: FrameType | None) -> None:
    """The handler of signals while a command runs that has nothing to save: it ends, and cleans up on its way.

    A second one that is urgent is raised too, in case the cleaning hangs; the exit status names the first.
    """
    if _held is not None:
        _held.append(signum)
        return
    if _first and signum in GENTLE:
        return
    _remember(signum)
    if _is_ending:
        os._exit(128 + _first)
    raise CtrlC if signum == signal.SIGINT else StopRequested(signum)


def _remember(signum: int) -> None:
    global _first
    _first = _first or signum


def exit_status(default: int) -> int:
    """The exit status of a command that signals have ended, by the first of them; ``default`` if none came."""
    return 128 + _first if _first else default


def end_by(error: KeyboardInterrupt, default: int) -> int:
    """The exit status of a command that ``error`` ends. No signal raises an exception from here on."""
    global _is_ending
    _is_ending = True
    return exit_status(getattr(error, "exit_code", default))


@contextmanager
def uninterrupted() -> Iterator[None]:
    """A block that a command finishes first, such as one that cleans up: a signal is raised after it."""
    global _held
    if _held is not None or not _is_main_thread():
        yield
        return
    _held = []
    try:
        yield
    finally:
        held, _held = _held, None
        if held:
            raise_stop(held[0], None)


@contextmanager
def interruptible() -> Iterator[None]:
    """The part of an ``uninterrupted`` block that a signal may end."""
    global _held
    if _held is None or not _is_main_thread():
        yield
        return
    try:
        held, _held = _held, None
        if held:
            raise_stop(held[0], None)
        yield
    finally:
        _held = []


def _is_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


@contextmanager
def raise_signals() -> Iterator[None]:
    """Raise ``CtrlC`` at SIGINT and ``StopRequested`` at the others while the block runs, in the main thread.

    A signal that is ignored stays ignored, and a caller keeps its own handlers.
    """
    global _first, _is_ending
    _first, _is_ending = 0, False
    previous: dict[int, Any] = {}
    if _is_main_thread():
        for signum in SIGNALS:
            if (handler := signal.getsignal(signum)) in (signal.SIG_DFL, signal.default_int_handler):
                signal.signal(signum, raise_stop)
                previous[signum] = handler
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def is_raised_by_hand(error: BaseException) -> bool:
    """Whether code raised KeyboardInterrupt without any signal; False where that cannot be known."""
    return type(error) is KeyboardInterrupt and signal.getsignal(signal.SIGINT) is not signal.default_int_handler


class StopSignals:
    """What was asked for, and whether it may interrupt what is going on.

    Until ``defer`` is called a signal interrupts at once; from then on only inside ``interruptible``. Several
    processes (``agree`` given) are never interrupted in the middle, where one would leave the others waiting: they
    agree at the borders of what is interruptible.
    """

    def __init__(self) -> None:
        self.asked = 0
        self._may_interrupt = True
        self._agree: Callable[[int], int] | None = None

    def defer(self, agree: Callable[[int], int] | None = None) -> None:
        """From now on interrupt only where it is allowed. ``agree``: the maximum of a number over all ranks."""
        self._may_interrupt = False
        self._agree = agree

    def hold(self) -> None:
        """From now on do not interrupt, until ``allow``."""
        self._may_interrupt = False

    def allow(self) -> None:
        """Interrupt at once again. Raises StopRequested if that was asked for meanwhile."""
        self._may_interrupt = True
        self.check()

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """Work that may be dropped. Raises StopRequested before it, in it or after it, if that was asked for."""
        self.check()
        try:
            self._may_interrupt = self._agree is None
            yield
        except StopRequested:
            raise
        except KeyboardInterrupt as err:  # not by a handler of ours: another thread's, or raised by hand
            raise StopRequested(signal.SIGINT) from err
        finally:
            self._may_interrupt = False
        self.check()

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """A part of what is interruptible that is not: what was asked for meanwhile is raised behind it."""
        allowed, self._may_interrupt = self._may_interrupt, False
        try:
            yield
        finally:
            self._may_interrupt = allowed
        if allowed:
            self.check()

    def check(self) -> None:
        """Raises StopRequested if any rank was asked to stop; every rank calls it."""
        asked = self._agree(self.asked) if self._agree else self.asked
        if asked:
            self.asked = asked
            raise StopRequested(asked)

    def handle(self, signum: int, frame: FrameType | None) -> None:
        """The signal handler."""
        _remember(signum)
        if self.asked and signum in GENTLE:
            return
        if self.asked and self.asked not in GENTLE:
            # Nobody can clean up now. The newest finished checkpoint is whole, whatever was going on.
            _show_cursor()
            os._exit(128 + signum)
        is_first, self.asked = not self.asked, signum
        if is_first and self._may_interrupt:
            self._may_interrupt = False
            raise StopRequested(signum)


def _show_cursor() -> None:
    """A live view has hidden it."""
    with suppress(OSError):  # the terminal may be gone
        if os.isatty(1):
            os.write(1, b"\x1b[?25h")


@contextmanager
def handle_stop_signals() -> Iterator[StopSignals]:
    """Handle the signals while the block runs; outside of the main thread, where none arrive, do nothing."""
    stop = StopSignals()
    previous = {}
    if _is_main_thread():
        for signum in SIGNALS:
            # A signal that is ignored (SIGINT behind nohup or &) stays ignored, and a caller keeps its own handlers.
            handler = signal.getsignal(signum)
            if handler in (signal.SIG_DFL, raise_stop) or (signum in URGENT and handler != signal.SIG_IGN):
                previous[signum] = signal.signal(signum, stop.handle)
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)

"""A limit on time ends code that drops the interruption, and leaves nothing behind."""

import contextlib
import signal
import time
from collections.abc import Callable

import pytest

from reasonrl.contracts import clock
from reasonrl.contracts.clock import TooSlowError, limited_to

LONG = 3.0
came_to_the_end: list[bool] = []


def waits() -> None:
    """By the processor's time, so that a busy machine changes nothing."""
    until = time.process_time() + LONG
    while time.process_time() < until:
        pass
    came_to_the_end.append(True)


class Waits:
    def __del__(self) -> None:
        waits()


def catches_all() -> None:
    for _ in range(2):
        with contextlib.suppress(BaseException):
            waits()


def cleans_up_slowly() -> None:
    try:
        waits()
    finally:
        waits()


def raises_its_own() -> None:
    try:
        waits()
    except BaseException as err:
        raise RuntimeError("the task failed") from err


def is_deleted() -> None:
    """Python prints and drops what is raised in a ``__del__``."""
    one = Waits()
    del one
    waits()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("code", [waits, catches_all, cleans_up_slowly, raises_its_own, is_deleted])
@pytest.mark.parametrize("time_of", ["processor", "all"])
def test_code_that_drops_the_interruption_is_interrupted_again(
    code: Callable[[], None], time_of: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clock, "AGAIN_S", 0.1)
    came_to_the_end.clear()
    with pytest.raises(TooSlowError, match=r"longer than 0\.05 s"), limited_to(0.05, time_of):  # type: ignore[arg-type]
        code()
    assert not came_to_the_end
    assert signal.getitimer(signal.ITIMER_REAL) == signal.getitimer(signal.ITIMER_VIRTUAL) == (0.0, 0.0)


def test_an_interruption_never_gets_past_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that comes when the block has just ended, or while it is being interrupted, is dropped."""
    monkeypatch.setattr(clock, "AGAIN_S", 1e-5)
    for _ in range(2000):
        with contextlib.suppress(TooSlowError), limited_to(2e-5, "all"):
            pass


def test_an_error_in_time_is_raised_as_it_is() -> None:
    with pytest.raises(ValueError, match="in time"), limited_to(60):
        raise ValueError("in time")


def ends_by_ctrl_c() -> None:
    try:
        waits()
    finally:
        raise KeyboardInterrupt


def test_a_late_ctrl_c_is_raised() -> None:
    with pytest.raises(KeyboardInterrupt), limited_to(0.05):
        ends_by_ctrl_c()

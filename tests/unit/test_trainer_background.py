"""The thread that samples during the update."""

import io
import sys
import threading

import pytest

from reasonrl.errors import plugin_code
from reasonrl.trainer.background import Background


def test_one_thread_does_one_thing_after_the_other() -> None:
    background: Background[tuple[int, int]] = Background()
    may_end, order = threading.Event(), []

    def work(number: int) -> tuple[int, int]:
        may_end.wait(5)
        order.append(number)
        return number, threading.get_ident()

    background.drain()  # nothing to wait for
    futures = [background.submit(lambda number=number: work(number)) for number in range(5)]  # type: ignore[misc]
    assert not futures[0].done()
    may_end.set()
    background.drain()
    assert order == list(range(5))
    assert len({future.result()[1] for future in futures} - {threading.get_ident()}) == 1


@pytest.mark.parametrize("error", [ValueError, SystemExit, KeyboardInterrupt])
def test_an_error_waits_for_who_asks_for_the_result(error: type[BaseException]) -> None:
    background: Background[int] = Background()

    def fail() -> int:
        raise error("no")

    failed = background.submit(fail)
    background.drain()
    assert background.submit(lambda: 3).result(5) == 3
    with pytest.raises(error, match="no"):
        failed.result()


def test_what_the_main_thread_changes_meanwhile_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """A live view that starts or stops during the update keeps its streams."""
    background: Background[None] = Background()
    began, may_end = threading.Event(), threading.Event()

    def sample() -> None:
        with plugin_code("task"):
            began.set()
            may_end.wait(5)

    future = background.submit(sample)
    assert began.wait(5)
    new = io.StringIO()
    monkeypatch.setattr(sys, "stderr", new)
    may_end.set()
    future.result(5)
    assert sys.stderr is new

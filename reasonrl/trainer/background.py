"""One thread in which the rollout backend samples while the policy is updated."""

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import Generic, TypeVar

from reasonrl.restore.call import run_beside

T = TypeVar("T")


class Background(Generic[T]):
    """Does one thing after the other in a thread.

    The thread lives as long as the process, because the worker processes of tools end with the thread that starts them.
    """

    def __init__(self) -> None:
        self._work: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._last: Future[T] | None = None

    def submit(self, work: Callable[[], T]) -> "Future[T]":
        """Start ``work``. What it raises is raised where the result is asked for."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="reasonrl-sampling", daemon=True)
            self._thread.start()
        future: Future[T] = Future()
        self._last = future
        self._work.put(lambda: _fulfill(future, work))
        return future

    def drain(self) -> None:
        """Wait until all is done. Errors stay with their results."""
        if self._last is not None:
            wait([self._last])

    def _run(self) -> None:
        run_beside()
        while True:
            self._work.get()()


def _fulfill(future: "Future[T]", work: Callable[[], T]) -> None:
    try:
        future.set_result(work())
    except BaseException as error:  # noqa: BLE001 - who asks for the result raises it
        future.set_exception(error)

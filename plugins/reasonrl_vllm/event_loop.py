"""An event loop in a thread of its own, for concurrent requests from code that waits."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from contextlib import ExitStack
from typing import Any, TypeVar

from anyio.from_thread import start_blocking_portal

T = TypeVar("T")


class EventLoop:
    """Runs coroutines for threads that wait for them.

    An exception in a waiting thread, such as a signal's, cancels what it waits for.
    """

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._portal = self._stack.enter_context(start_blocking_portal())
        self._running: set[Future[Any]] = set()

    def wait(self, work: Callable[[], Awaitable[T]]) -> T:
        """Run ``work`` to its end. Of several errors at once the first is raised."""
        future = self._portal.start_task_soon(work)
        self._running.add(future)
        try:
            return future.result()
        except BaseExceptionGroup as group:
            raise first_error(group) from None
        finally:
            self._running.discard(future)
            future.cancel()

    def cancel(self) -> None:
        """Cancel all that other threads wait for."""
        for future in list(self._running):
            future.cancel()

    def close(self) -> None:
        """Cancel what is running and end the thread. Idempotent."""
        self.cancel()
        self._stack.close()


def first_error(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the error that canceled the others."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error

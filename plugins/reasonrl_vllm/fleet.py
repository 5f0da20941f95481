"""Several servers that sample for one run: requests are balanced, and a server that is lost is left out."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

import anyio
from anyio.abc import TaskGroup, TaskStatus

from reasonrl.errors import RolloutError
from reasonrl_vllm.client import CONNECTIONS, Client, ServerLostError
from reasonrl_vllm.event_loop import EventLoop, first_error

log = logging.getLogger(__name__)
T = TypeVar("T")


class Member(Protocol):
    """A server of the fleet. ``max_num_seqs``: completions that it makes at once."""

    client: Client
    max_num_seqs: int


M = TypeVar("M", bound=Member)


class Fleet(Generic[M]):
    """The servers that are left. With one server its errors are those of the run."""

    def __init__(self, members: Sequence[M], loop: EventLoop) -> None:
        self.members, self._loop, self._size = list(members), loop, len(members)

    def each(self, work: Callable[[M], object]) -> None:
        """Call ``work`` for every server, at the same time.

        Raises:
            RolloutError: if no server is left, or for any other error than ServerLostError.
        """
        members = list(self.members)
        if len(members) == 1:  # in this thread, which a signal interrupts
            work(members[0])
            return
        with ThreadPoolExecutor(len(members)) as pool:
            futures = [pool.submit(work, member) for member in members]
        for member, future in zip(members, futures, strict=True):
            try:
                future.result()
            except ServerLostError as error:
                self.lose(member, error)

    def lose(self, member: M, error: ServerLostError) -> None:
        """Leave a server out from now on.

        Raises:
            RolloutError: if it was the last one.
        """
        self.members = [one for one in self.members if one is not member]
        if self._size == 1:
            raise error
        if not self.members:
            raise RolloutError(
                f"vllm: none of the {self._size} servers is left; the last one: {error.reason}; restart them and "
                "resume the run"
            ) from error
        left = f"{len(self.members)} of {self._size} servers"
        log.warning("vllm: %s: left out until the run is resumed; %s remain", error.reason, left)

    def spread(self, items: Sequence[Any], ask: Callable[[M, Any], Awaitable[T]], *, samples: int = 1) -> list[T]:
        """``await ask(member, item)`` of every item, in order, each asked of the server with the least load.

        An error other than ServerLostError cancels the rest. ``samples``: completions of an item.
        """
        return self._loop.wait(_Spread(self, items, ask, samples).run)


@dataclass(eq=False, slots=True)
class _Share(Generic[M]):
    """What one server is doing. ``most``: items that it is asked at once, which keeps as many queued as it runs."""

    member: M
    most: int
    tasks: TaskGroup
    items: set[int] = field(default_factory=set)

    @property
    def load(self) -> float:
        """Items asked, as a share of what it takes."""
        return len(self.items) / self.most


class _Spread(Generic[M, T]):
    """One call of ``Fleet.spread``."""

    def __init__(
        self, fleet: Fleet[M], items: Sequence[Any], ask: Callable[[M, Any], Awaitable[T]], samples: int
    ) -> None:
        self._fleet, self._items, self._ask, self._samples = fleet, items, ask, samples
        self._waiting = deque(range(len(items)))
        self._answers: dict[int, T] = {}
        self._shares: list[_Share[M]] = []
        self._changed: anyio.Event

    async def run(self) -> list[T]:
        self._changed = anyio.Event()
        async with anyio.create_task_group() as servers:
            for member in self._fleet.members:
                await servers.start(self._serve, member)
            while len(self._answers) < len(self._items):
                self._hand_out()
                await self._changed.wait()
                self._changed = anyio.Event()
            servers.cancel_scope.cancel()
        return [self._answers[index] for index in range(len(self._items))]

    def _hand_out(self) -> None:
        while self._waiting and self._shares:
            share = min(self._shares, key=lambda share: share.load)
            if share.load >= 1.0:
                return
            index = self._waiting.popleft()
            share.items.add(index)
            share.tasks.start_soon(self._one, share, index)

    async def _one(self, share: _Share[M], index: int) -> None:
        self._answers[index] = await self._ask(share.member, self._items[index])
        share.items.discard(index)
        self._changed.set()

    async def _serve(self, member: M, *, task_status: TaskStatus[None]) -> None:
        """Ask one server until all is answered. What it has not answered when it is lost waits for the others."""
        share: _Share[M] | None = None
        try:
            async with anyio.create_task_group() as tasks:
                most = min(CONNECTIONS, max(1, 2 * member.max_num_seqs // self._samples))
                share = _Share(member, most, tasks)
                self._shares.append(share)
                tasks.start_soon(member.client.watch)
                task_status.started()
        except BaseExceptionGroup as group:
            error = first_error(group)
            if not isinstance(error, ServerLostError) or share is None:
                raise
            self._shares.remove(share)
            self._fleet.lose(member, error)
            self._waiting.extendleft(sorted(share.items, reverse=True))
            self._changed.set()

"""Worker processes for one reward: asked in parallel, killed when late, replaced when lost.

One request at a time goes to a worker. The clock of a request runs from the moment it is sent to a worker that is
ready; a worker that is late, dies, or answers nonsense is killed with everything it started, and costs only the
completions it was asked about. Answers come back in the order of the requests, whoever was first.
"""

import json
import os
import pickle
import selectors
import socket
import sys
import time
import weakref
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

from reasonrl.contracts.data import Score
from reasonrl.contracts.protocols import RewardContext
from reasonrl.contracts.specs import RewardSpec
from reasonrl.errors import PluginContractError, RecipeError
from reasonrl.rewards.judging import Kind, Verdict, failure
from reasonrl.rewards.processes import ChildProcess
from reasonrl.rewards.wire import (
    GARBLED,
    MAX_REPLY_BYTES,
    MAX_TRACEBACK,
    Inbox,
    Reply,
    clip_text,
    decode_reply,
    frame,
    parse,
)
from reasonrl.rewards.worker import Description

MAX_WORKERS = 4
STARTUP_S = 60.0
"""How long a reward's modules may take to import and its factory to build it."""
MAX_FAILED_STARTS = 3

_STOPPED_S = 2.0  # a longer time between two looks was no work of ours
_LOOK_S = 0.05  # how often a worker that says nothing is checked for being alive
_CHUNK = 1 << 16


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked of a worker: the arguments of ``score`` or ``score_group``, for ``size`` completions."""

    arguments: tuple[object, ...]
    size: int = 1


class _LostError(Exception):
    """A worker can no longer be used; says why, and perhaps where it was."""

    def __init__(self, reason: str, details: str = "") -> None:
        super().__init__(reason)
        self.details = details


@dataclass(eq=False)
class _Worker:
    """One process and the socket to it. ``task`` is the index of the request it is busy with."""

    process: ChildProcess
    channel: socket.socket
    outbox: bytes
    deadline: float
    kind: Kind | Literal[""] = ""
    task: int | None = None
    number: int = 0
    inbox: Inbox = field(default_factory=Inbox)

    @property
    def is_idle(self) -> bool:
        return self.kind != "" and self.task is None

    def send(self, payload: bytes, limit_s: float) -> None:
        self.outbox = frame(payload)
        self.deadline = time.monotonic() + limit_s
        self.flush()

    def flush(self) -> None:
        try:
            self.outbox = self.outbox[self.channel.send(self.outbox) :]
        except BlockingIOError:
            return
        except OSError:
            raise _LostError(self.process.how_it_ended()) from None

    def pull(self, max_bytes: int) -> bytes | None:
        """The payload that has come in whole; None if there is none yet.

        Raises:
            _LostError: if the process ended, is late, or sends more than ``max_bytes``.
        """
        has_ended = self.process.has_ended()  # asked first: what it said before its end is still to be read
        while (payload := self.inbox.take()) is None:
            data = self._read()
            if data is None and not has_ended:
                return None
            if not data:
                raise _LostError(self.process.how_it_ended())
            self.inbox.add(data)
            if (announced := self.inbox.announced()) > max_bytes:
                raise _LostError(f"worker sent {announced} bytes, over the limit of {max_bytes}")
        return payload

    def _read(self) -> bytes | None:
        """What there is; None if there is nothing, empty if nothing will come any more."""
        try:
            return self.channel.recv(_CHUNK)
        except BlockingIOError:
            return None
        except OSError:
            return b""

    def end(self) -> None:
        self.channel.close()
        self.process.end()


class WorkerPool:
    """Up to ``size`` workers that hold the same reward. Close it, or let it be collected: no process outlives it."""

    def __init__(
        self,
        spec: RewardSpec,
        config: object,
        context: RewardContext,
        *,
        name: str,
        size: int | None = None,
        label: str = "",
    ) -> None:
        self._label = label or f"reward {name!r}"
        self._timeout_s, self._lost_value = spec.timeout_s, spec.lost_value
        self._size = size or default_size()
        self._hello = frame(pickle.dumps(_describe(spec, config, context, name, self._label)))
        self._workers: list[_Worker] = []
        self._numbers = 0
        self._failed_starts, self._why_not = 0, ""
        self._looked = 0.0
        self._owner = os.getpid()
        self.retired: list[str] = []
        """Why workers that had answered were replaced; the runner logs and clears it."""
        self._finalizer = weakref.finalize(self, _end_all, self._workers, self._owner)

    @property
    def identity(self) -> bytes:
        """Equal for pools whose workers are the same."""
        return self._hello + str((self._timeout_s, self._size)).encode()

    def open(self) -> Kind:
        """Start the first worker; returns what may be asked of it.

        Raises:
            RecipeError: if the reward's factory refuses its config.
            PluginContractError: if it fails otherwise.
        """
        worker = self._spawn()
        try:
            while not worker.kind:
                self._wait(worker.deadline)
                self._shake_hands(worker)
        except _LostError as err:
            self._kill(worker)
            raise PluginContractError(f"{self._label} in its own process: {err}") from None
        except BaseException:
            self._kill(worker)
            raise
        return worker.kind

    def close(self) -> None:
        """End all workers. The pool may be used again; it then starts new ones."""
        _end_all(self._workers, self._owner)

    @property
    def pids(self) -> tuple[int, ...]:
        """The process ids of the living workers."""
        return tuple(worker.process.pid for worker in self._workers)

    def ask(self, requests: Sequence[Request]) -> list[list[Verdict]]:
        """The verdicts on each request's completions, in order. Takes as long as the slowest, within the limits."""
        answers: dict[int, list[Verdict]] = {}
        self._looked = time.monotonic()
        waiting = deque(range(len(requests)))
        self._failed_starts = 0
        try:
            while len(answers) < len(requests):
                answers.update(self._round(requests, waiting))
        finally:  # interrupted: the answers are discarded
            for worker in [w for w in self._workers if w.task is not None]:
                self._kill(worker)
        return [answers[task] for task in range(len(requests))]

    def _round(self, requests: Sequence[Request], waiting: deque[int]) -> Iterator[tuple[int, list[Verdict]]]:
        """Hand out what waits, wait for something to happen, and give what was answered or lost."""
        for worker in [w for w in self._workers if w.is_idle and w.process.has_ended()]:
            self._kill(worker)
        while waiting and self._failed_starts < MAX_FAILED_STARTS and self._can_spawn(len(waiting)):
            self._spawn()
        for worker in [w for w in self._workers if w.is_idle]:
            if waiting:
                yield from self._hand_out(worker, waiting.popleft(), requests)
        if waiting and self._failed_starts >= MAX_FAILED_STARTS and not self._workers:
            while waiting:
                task = waiting.popleft()
                yield task, [failure("lost", f"worker did not start: {self._why_not}")] * requests[task].size
        busy = [w for w in self._workers if not w.is_idle]
        self._allow_for_a_stop(busy)
        if busy:
            self._wait(min(w.deadline for w in busy))
        for worker in busy:
            yield from self._advance(worker, requests)

    def _allow_for_a_stop(self, busy: Sequence[_Worker]) -> None:
        """Time in which this process was stopped (SIGTSTP, a scheduler) does not count: its workers were, too."""
        gap = time.monotonic() - self._looked
        self._looked += gap
        if gap > _STOPPED_S:
            for worker in busy:
                worker.deadline += gap

    def _can_spawn(self, waiting: int) -> bool:
        available = sum(w.task is None for w in self._workers)
        return len(self._workers) < self._size and available < waiting

    def _spawn(self) -> _Worker:
        ours, theirs = socket.socketpair()
        with theirs:
            process = ChildProcess(theirs.fileno(), json.dumps(sys.path))
        ours.setblocking(False)
        worker = _Worker(process, ours, self._hello, time.monotonic() + STARTUP_S)
        self._workers.append(worker)
        return worker

    def _hand_out(self, worker: _Worker, task: int, requests: Sequence[Request]) -> Iterator[tuple[int, list[Verdict]]]:
        request = requests[task]
        self._numbers += 1
        try:
            body = pickle.dumps(request.arguments)
        except Exception as err:  # noqa: BLE001 - a task's info may hold anything
            reason = f"problem cannot be sent to a worker: {type(err).__name__}"
            yield task, [failure("raised", reason, error=err)] * request.size
            return
        worker.task, worker.number = task, self._numbers
        try:
            worker.send(pickle.dumps((self._numbers, request.size, body)), self._timeout_s * request.size)
        except _LostError as err:
            yield self._lose(worker, requests, err)

    def _wait(self, until: float) -> None:
        """Until a worker says something or takes what is left to send, ``until`` passes, or it is time to look."""
        with selectors.PollSelector() as selector:
            for worker in self._workers:
                if not worker.is_idle:
                    events = selectors.EVENT_READ | (selectors.EVENT_WRITE if worker.outbox else 0)
                    selector.register(worker.channel, events)
            selector.select(max(0.0, min(_LOOK_S, until - time.monotonic())))

    def _advance(self, worker: _Worker, requests: Sequence[Request]) -> Iterator[tuple[int, list[Verdict]]]:
        """Take what a worker has to say: that it is ready, an answer, or nothing in time."""
        size = requests[worker.task].size if worker.task is not None else 1
        try:
            if not worker.kind:
                self._start(worker)
                return
            if worker.outbox:
                worker.flush()
            payload = worker.pull(MAX_REPLY_BYTES * size)
            if payload is not None:
                yield self._take_answer(worker, decode_reply(payload, worker.number, size))
            elif time.monotonic() > worker.deadline:
                where = clip_text(worker.process.where_it_is(), MAX_TRACEBACK)
                raise _LostError(f"timed out after {self._timeout_s * size:g} s", where)
        except (_LostError, ValueError) as err:
            yield self._lose(worker, requests, err)

    def _take_answer(self, worker: _Worker, reply: Reply) -> tuple[int, list[Verdict]]:
        assert worker.task is not None
        task, worker.task = worker.task, None
        if reply.retired:
            self.retired.append(clip_text(reply.retired, 100))
            self._kill(worker)
        return task, list(reply.verdicts)

    def _lose(self, worker: _Worker, requests: Sequence[Request], err: Exception) -> tuple[int, list[Verdict]]:
        assert worker.task is not None
        task, details = worker.task, getattr(err, "details", "")
        self._kill(worker)
        verdict = failure("lost", str(err), details=details)
        if self._lost_value is not None and requests[task].size == 1:
            score = Score(value=self._lost_value, correct=False, reason=verdict.score.reason)
            verdict = replace(verdict, score=score)
        return task, [verdict] * requests[task].size

    def _start(self, worker: _Worker) -> None:
        """Let a worker that is not ready yet come up; one that fails is counted and gone."""
        try:
            self._shake_hands(worker)
            if worker.kind:
                self._failed_starts = 0
        except (_LostError, PluginContractError, RecipeError) as err:
            self._failed_starts, self._why_not = self._failed_starts + 1, str(err)
            self._kill(worker)

    def _shake_hands(self, worker: _Worker) -> None:
        """Give a worker that is starting its kind, if it has become ready."""
        if worker.outbox:
            worker.flush()
        payload = worker.pull(MAX_REPLY_BYTES)
        if payload is None:
            if time.monotonic() > worker.deadline:
                raise _LostError(f"was not built within {STARTUP_S:g} s")
            return
        try:
            told = parse(payload)
        except ValueError as err:
            raise _LostError(str(err)) from None
        if "failed" in told:
            raise self._explain_refusal(told)
        if told.get("ready") not in get_args(Kind):
            raise _LostError(GARBLED)
        worker.kind = told["ready"]

    def _explain_refusal(self, told: Mapping[str, object]) -> Exception:
        text = " ".join(clip_text(told.get("text"), MAX_TRACEBACK).split())
        if told.get("failed") == "PluginContractError":
            return PluginContractError(text)
        if told.get("user") is True:
            return RecipeError(f"{self._label}: {text}")
        kind = clip_text(told.get("failed"), 100)
        return PluginContractError(
            f"{self._label} in its own process: its factory raised {kind}: {text}; a factory and its config "
            "must be importable, not defined in a script"
        )

    def _kill(self, worker: _Worker) -> None:
        worker.task = None
        self._workers.remove(worker)
        worker.end()


def default_size() -> int:
    """Workers of one pool: one for each core this process may use, shared with the machine's other ranks."""
    affinity = getattr(os, "sched_getaffinity", None)  # not everywhere
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    ranks = os.environ.get("LOCAL_WORLD_SIZE", "1")
    return max(1, min(MAX_WORKERS, cores // max(1, int(ranks) if ranks.isdigit() else 1)))


def _describe(spec: RewardSpec, config: object, context: RewardContext, name: str, label: str) -> Description:
    try:
        build = pickle.dumps((spec.factory, config, context))
    except Exception as err:
        raise PluginContractError(
            f"{label} in its own process: {spec.factory!r} or its config cannot be sent to a worker "
            f"({type(err).__name__}: {err}); give the factory as 'pkg.mod:Class' or a function of a module"
        ) from err
    return Description(name=name, build=build, memory_mb=spec.memory_mb)


def _end_all(workers: list[_Worker], owner: int) -> None:
    """End every worker, unless this is a fork of the process that owns them."""
    if os.getpid() != owner:
        return
    while workers:
        workers.pop().end()

"""What the processes of a run tell each other before they are connected, through torch's store.

Each prepares by itself. Then they compare what they are about to do: an error in one of them, or a difference, ends
all with one line of the first process.
"""

import itertools
import json
import logging
import math
import os
import socket
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from functools import lru_cache
from pathlib import Path
from queue import Empty, Queue
from threading import Thread
from typing import TYPE_CHECKING, Any, TypedDict

from reasonrl.errors import RAISABLE, ProcessError, leave_to_first, one_line, tell
from reasonrl.rundir.differences import differences, format_pair
from reasonrl.runs.connection import explained_connection
from reasonrl.runs.launched import Place, find_place, is_first_on_machine, join_timeout

if TYPE_CHECKING:
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

log = logging.getLogger(__name__)

POLL_S = 0.05
PATIENCE_S = 30.0
"""After so long it is said which process is waited for."""
CONNECT_S = 2.0
LOCALHOST = "127.0.0.1"
FAREWELL_S = 10.0
"""So long the first process, which may serve the store, waits until the others know why all end."""
REPORT_S = 0.5
"""So long the others wait for its report: a launcher ends the first process as soon as another one has failed."""
MAX_SHOWN = 5
_WAITING = "waiting for %s at %s:%s, %g s at most"
_numbers = itertools.count()


class Card(TypedDict):
    """What a process tells. ``facts``: what all have in common; ``token``: a file where the run folder is to be."""

    host: str
    error: str
    code: int
    facts: Mapping[str, object]
    token: str


class Verdict(TypedDict):
    """What the first process makes of the cards. Without an error the run begins."""

    error: str
    code: int
    token: str


@dataclass(slots=True)
class Preparation:
    """What a process prepares while the others do the same."""

    is_first: bool
    facts: Mapping[str, object] = field(default_factory=dict)
    token: str = ""

    def share(self, folder: Path) -> None:
        """Have the others look whether they see ``folder``: the first process leaves a file there for a moment."""
        if self.is_first:
            handle, self.token = tempfile.mkstemp(prefix=".reasonrl-", dir=folder)
            os.close(handle)


@contextmanager
def meeting(limit: Callable[[], float] = join_timeout) -> Iterator[Preparation]:
    """Prepare inside; at the end all processes meet. With one process nothing happens.

    Args:
        limit: seconds that the first process waits for the slowest one.

    Raises:
        ProcessError: in each process, if another one has failed, is missing, or prepares something else.
    """
    place = find_place()
    if place is None:
        yield Preparation(is_first=False)
        return
    mine, error = Preparation(is_first=place.rank == 0), None
    try:
        try:
            yield mine
        except RAISABLE as err:
            error = err
        verdict = _meet(place, mine, error, limit())
        if verdict["error"]:
            raise _own(error, place, verdict)
    finally:
        if mine.token:
            with suppress(OSError):
                os.unlink(mine.token)


def _meet(place: Place, mine: Preparation, error: BaseException | None, limit: float) -> Verdict:
    """Raises an error of this process if it cannot tell it to the others."""
    try:
        room = Room(place, limit)
        with explained_connection():
            room.say("card", _card(mine, error))
            verdict = room.hear("verdict", lambda: judge(room.gather("card", until=_has_failed)))
            if not verdict["error"] and verdict["token"]:
                room.say("seen", os.path.exists(verdict["token"]))
                verdict = room.hear("shared", lambda: _judge_folder(mine.token, room.gather("seen")))
            if verdict["error"]:
                room.part()
        return verdict
    except ProcessError:
        if error is not None:
            raise error  # noqa: B904 - what is wrong here, not how it was told
        raise


def _has_failed(card: Card) -> bool:
    return bool(card["error"])


def _own(error: BaseException | None, place: Place, verdict: Verdict) -> BaseException:
    """The error that this process raises; only the first one reports it."""
    final = error if error is not None else ProcessError(verdict["error"], verdict["code"])
    if place.rank:
        leave_to_first(final)
    return final


def _card(mine: Preparation, error: BaseException | None) -> Card:
    text, code = ("", 0) if error is None else tell(error)
    return Card(
        host=socket.gethostname(),
        error=text,
        code=code,
        facts=mine.facts,
        token=mine.token,
    )


def judge(cards: Mapping[int, Card]) -> Verdict:
    """The first error, or else the first process that prepares something else than process 0."""
    for rank, card in cards.items():
        if card["error"]:
            text = f"{name(rank, cards)}: {card['error']}" if rank else card["error"]
            return Verdict(error=text, code=card["code"], token="")
    for rank, card in cards.items():
        found = list(differences(cards[0]["facts"], card["facts"]))
        if found:
            shown = [f"{at}: {' and '.join(format_pair(one, other))}" for at, one, other in found[:MAX_SHOWN]]
            more = f", and {len(found) - MAX_SHOWN} more" if len(found) > MAX_SHOWN else ""
            text = (
                f"{name(0, cards)} and {name(rank, cards)} of this run differ: {'; '.join(shown)}{more}; start the "
                "same command with the same files and packages everywhere"
            )
            return Verdict(error=text, code=2, token="")
    return Verdict(error="", code=0, token=cards[0]["token"])


def name(rank: int, cards: Mapping[int, Card]) -> str:
    """``process 1``, with its machine if there are several."""
    hosts = {card["host"] for card in cards.values()}
    return f"process {rank}" + (f" ({cards[rank]['host']})" if len(hosts) > 1 else "")


def _judge_folder(token: str, seen: Mapping[int, bool]) -> Verdict:
    if all(seen.values()):
        return Verdict(error="", code=0, token="")
    ranks = [str(rank) for rank, sees in seen.items() if not sees]
    text = (
        f"{os.path.dirname(token)} of process 0 is not the folder that process {', '.join(ranks)} finds there: the "
        "processes of a run need one folder on a disk that all machines share; set output_dir or --run-dir to one"
    )
    return Verdict(error=text, code=2, token="")


class Room:
    """One meeting in torch's store. The first process hears all others, and they hear it."""

    def __init__(self, place: Place, limit: float) -> None:
        self._place, self._until, self._limit = place, time.monotonic() + limit, limit
        self._remind = time.monotonic() + PATIENCE_S
        self._store = open_store(place)
        self._prefix = f"reasonrl/{place.attempt}/{next(_numbers)}"

    def say(self, what: str, value: object) -> None:
        """Tell the others."""
        self._store.set(self._key(what, self._place.rank), json.dumps(value))

    def gather(self, what: str, until: Callable[[Any], bool] = lambda value: False) -> dict[int, Any]:
        """What each has said; once ``until`` holds for one, the rest is not waited for.

        Raises:
            ProcessError: naming those who have said nothing in time.
        """
        said: dict[int, Any] = {}
        while missing := [rank for rank in range(self._place.size) if rank not in said]:
            for rank in missing:
                if self._store.check([self._key(what, rank)]):
                    said[rank] = json.loads(self._store.get(self._key(what, rank)))
            if any(map(until, said.values())):
                break
            if len(said) < self._place.size:
                self._wait(missing)
        return dict(sorted(said.items()))

    def _wait(self, missing: Sequence[int]) -> None:
        if time.monotonic() > self._until:
            raise ProcessError(_describe_missing(missing, self._place, self._limit))
        if time.monotonic() > self._remind:
            self._remind = math.inf
            log.warning(_WAITING, _ranks(missing), self._place.address, self._place.port, self._limit)
        time.sleep(POLL_S)

    def hear(self, what: str, decide: Callable[[], Verdict]) -> Verdict:
        """What the first process decides, in all of them."""
        if self._place.rank == 0:
            try:
                verdict = decide()
            except ProcessError as err:
                verdict = Verdict(error=str(err), code=err.exit_code, token="")
            self.say(what, verdict)
            return verdict
        key = self._key(what, 0)
        while not self._store.check([key]):
            if time.monotonic() > self._until + FAREWELL_S:
                raise ProcessError(f"process 0 has said nothing within {self._limit:g} s; its own output may say why")
            time.sleep(POLL_S)
        return json.loads(self._store.get(key))

    def part(self) -> None:
        """Before all end: the first process stays until the others have heard it."""
        key = f"{self._prefix}/heard"
        if self._place.rank:
            self._store.add(key, 1)
            time.sleep(REPORT_S)
            return
        until = time.monotonic() + FAREWELL_S
        while self._store.add(key, 0) < self._place.size - 1 and time.monotonic() < until:
            time.sleep(POLL_S)

    def _key(self, what: str, rank: int) -> str:
        return f"{self._prefix}/{what}/{rank}"


def _describe_missing(missing: Sequence[int], place: Place, limit: float) -> str:
    have = "have" if len(missing) > 1 else "has"
    return (
        f"{_ranks(missing)} {have} not come to {place.address}:{place.port} within {limit:g} s, {place.size} were "
        "asked for; their own output may say why"
    )


def _ranks(missing: Sequence[int]) -> str:
    return f"process{'es' if len(missing) > 1 else ''} {', '.join(map(str, missing))}"


@lru_cache(maxsize=1)
def open_store(place: Place) -> "TCPStore":
    """The store of torch at the place where the processes meet: the launcher's, or one that the first process serves.

    Raises:
        ProcessError: if it cannot be served, or nothing answers there in time.
    """
    serves = place.rank == 0 and not place.has_store
    if not serves:
        _wait_for_server(place)
    store = _connect(place, serves)
    if serves:
        _wait_for_server(place)  # the others, and torch, come by the address
    return store


def _connect(place: Place, serves: bool) -> "TCPStore":
    """In a thread: torch waits without a limit for what takes connections and says nothing, and not for Ctrl-C."""
    done: Queue[Any] = Queue()
    Thread(target=lambda: done.put(_try_store(place, serves)), daemon=True).start()
    until = time.monotonic() + join_timeout() + CONNECT_S
    while time.monotonic() < until:
        try:
            found = done.get(timeout=POLL_S)
        except Empty:
            continue
        if isinstance(found, ProcessError):
            raise found
        return found
    raise ProcessError(
        f"what takes connections at {place.address}:{place.port} is not process 0: it has said nothing within "
        f"{join_timeout():g} s; check MASTER_ADDR, and choose another port, the same on every machine"
    )


def _try_store(place: Place, serves: bool) -> "TCPStore | ProcessError":
    from torch.distributed import DistError, TCPStore  # type: ignore[attr-defined]

    try:
        return TCPStore(
            LOCALHOST if serves else place.address,
            place.port,
            place.size,
            serves,
            timeout=timedelta(seconds=join_timeout()),
            wait_for_workers=False,
            multi_tenant=True,
        )
    except (DistError, ValueError) as err:
        in_use = "EADDRINUSE" in str(err)
        text = f"port {place.port} is in use on this machine; choose another one, the same on every machine"
        return ProcessError(
            text if in_use else f"cannot meet at {place.address}:{place.port}: {one_line(err)}; check MASTER_ADDR"
        )


def _wait_for_server(place: Place) -> None:
    """Try until it answers; torch itself would log each try, and not end at Ctrl-C."""
    until, remind = time.monotonic() + join_timeout(), time.monotonic() + PATIENCE_S
    while True:
        try:
            socket.create_connection((place.address, place.port), CONNECT_S).close()
            return
        except (OSError, UnicodeError) as err:  # the latter: a malformed host name
            if time.monotonic() > until:
                raise ProcessError(_describe_unreachable(place, err)) from err
            if time.monotonic() > remind and is_first_on_machine():
                remind = math.inf
                log.warning(_WAITING, "process 0", place.address, place.port, join_timeout())
            time.sleep(POLL_S * 4)


def _describe_unreachable(place: Place, error: OSError | UnicodeError) -> str:
    reason = one_line(getattr(error, "strerror", None) or error)
    where = f"process 0 at {place.address}:{place.port} within {join_timeout():g} s: {reason}"
    if place.rank == 0:
        return (
            f"process 0 cannot be reached by its own address: no {where}; set MASTER_ADDR to an address of this machine"
        )
    return (
        f"process {place.rank} cannot reach {where}; check that it is started, its address, and that a firewall lets "
        "the port pass"
    )

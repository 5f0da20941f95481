"""How trainer and worker talk: frames of length and payload over a socket; what a worker says is JSON.

The trainer trusts nothing that comes from a worker: it is bounded in length, parsed as JSON and checked like any
other score. Requests go the other way as pickles, which the trainer made itself.
"""

import json
import socket
import struct
from dataclasses import dataclass, fields
from typing import Any

from reasonrl.contracts.data import Score
from reasonrl.rewards.judging import BadScoreError, Verdict, as_score, failure
from reasonrl.text import escape

MAX_REPLY_BYTES = 1 << 20
"""Longest reply for one completion."""
MAX_TRACEBACK = 8000
"""Characters of a traceback that a worker sends."""
GARBLED = "worker answered with no score"

_HEADER = struct.Struct("!Q")
_FIELDS = frozenset(f.name for f in fields(Score))


def frame(payload: bytes) -> bytes:
    """``payload`` behind its length."""
    return _HEADER.pack(len(payload)) + payload


def receive(channel: socket.socket) -> bytes | None:
    """The next payload of a blocking socket; None when the other side has closed it."""
    header = _read(channel, _HEADER.size)
    return None if header is None else _read(channel, _HEADER.unpack(header)[0])


def _read(channel: socket.socket, size: int) -> bytes | None:
    data = bytearray()
    while len(data) < size:
        part = channel.recv(min(size - len(data), 1 << 16))
        if not part:
            return None
        data += part
    return bytes(data)


class Inbox:
    """Takes bytes as they come and gives whole payloads."""

    def __init__(self) -> None:
        self._data = bytearray()

    def add(self, data: bytes) -> None:
        """Append bytes as they were read."""
        self._data += data

    def announced(self) -> int:
        """Length of the payload that is coming in; 0 while it is unknown."""
        return _HEADER.unpack_from(self._data)[0] if len(self._data) >= _HEADER.size else 0

    def take(self) -> bytes | None:
        """The first payload, once it is whole."""
        end = _HEADER.size + self.announced()
        if len(self._data) < max(end, _HEADER.size):
            return None
        payload = bytes(self._data[_HEADER.size : end])
        del self._data[:end]
        return payload


@dataclass(frozen=True, slots=True)
class Reply:
    """``number`` is that of the request; ``retired``, if not empty, says why the worker must be replaced."""

    number: int
    verdicts: tuple[Verdict, ...]
    retired: str = ""


def encode_reply(reply: Reply) -> bytes:
    """A reply as JSON. Verdicts of more than ``MAX_REPLY_BYTES`` a completion are replaced by refusals."""
    payload = _dump(reply)
    size, limit = len(payload), MAX_REPLY_BYTES * max(1, len(reply.verdicts))
    if size <= limit:
        return payload
    refusal = failure("refused", f"returned scores of {size} bytes, over the limit of {limit}")
    return _dump(Reply(reply.number, (refusal,) * len(reply.verdicts), reply.retired))


def _dump(reply: Reply) -> bytes:
    entries = [_plain(verdict) for verdict in reply.verdicts]
    return json.dumps({"number": reply.number, "verdicts": entries, "retired": reply.retired}).encode()


def _plain(verdict: Verdict) -> dict[str, object]:
    if verdict.trouble:
        reason = verdict.score.reason
        return {"trouble": verdict.trouble, "reason": reason, "details": verdict.details[-MAX_TRACEBACK:]}
    return {f.name: getattr(verdict.score, f.name) for f in fields(Score)} | {"metrics": dict(verdict.score.metrics)}


def decode_reply(payload: bytes, number: int, size: int) -> Reply:
    """What a worker answered to request ``number``, of ``size`` completions, every score checked.

    Raises:
        ValueError: if it is not a reply to that request.
    """
    data = parse(payload)
    entries, retired = data.get("verdicts"), data.get("retired")
    if data.get("number") != number or not isinstance(entries, list) or len(entries) != size:
        raise ValueError(GARBLED)
    if not isinstance(retired, str):
        raise ValueError(GARBLED)
    return Reply(number, tuple(_verdict(entry) for entry in entries), retired)


def parse(payload: bytes) -> dict[str, Any]:
    """A JSON object.

    Raises:
        ValueError: if ``payload`` is anything else.
    """
    try:
        data = json.loads(payload)
    except (ValueError, RecursionError) as err:
        raise ValueError(GARBLED) from err
    if not isinstance(data, dict):
        raise ValueError(GARBLED)
    return data


def _verdict(entry: object) -> Verdict:
    if not isinstance(entry, dict):
        return failure("refused", GARBLED)
    if entry.get("trouble") in ("raised", "refused"):
        details = clip_text(entry.get("details"), MAX_TRACEBACK)
        return failure(entry["trouble"], clip_text(entry.get("reason"), MAX_REPLY_BYTES), details=details)
    if set(entry) != _FIELDS:
        return failure("refused", GARBLED)
    try:
        return Verdict(as_score(Score(**entry)))
    except BadScoreError as err:
        return failure("refused", str(err))


def clip_text(text: object, limit: int) -> str:
    """At most ``limit`` characters of a worker's text; what a terminal would obey is escaped."""
    return escape(text[-limit:], keep="\n\t") if isinstance(text, str) else ""

"""What comes from a worker is data: any bytes are a reply to the request, or refused; never an error elsewhere."""

from __future__ import annotations

import json
import math

from hypothesis import example, given, settings
from hypothesis import strategies as st

from reasonrl import Score
from reasonrl.rewards.judging import Verdict, failure
from reasonrl.rewards.wire import (
    MAX_REPLY_BYTES,
    Inbox,
    Reply,
    clip_text,
    decode_reply,
    encode_reply,
    frame,
)

NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
SCORES = st.builds(
    Score,
    value=st.none() | NUMBERS,
    correct=st.none() | st.booleans(),
    answer=st.none() | st.text(),
    token_values=st.lists(NUMBERS, max_size=3).map(tuple),
    metrics=st.dictionaries(st.text(max_size=100), NUMBERS, max_size=3),
    reason=st.text(),
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


@given(st.lists(SCORES, max_size=4), st.integers(min_value=0), st.text(max_size=20))
@settings(max_examples=60)
def test_scores_arrive_as_they_were(scores: list[Score], number: int, retired: str) -> None:
    reply = Reply(number, tuple(Verdict(score) for score in scores), retired)
    assert decode_reply(encode_reply(reply), number, len(scores)) == reply


def decoded(payload: bytes) -> Reply | None:
    try:
        return decode_reply(payload, 1, 1)
    except ValueError:
        return None


@given(st.binary(max_size=200))
@settings(max_examples=100)
@example(b"[" * 100_000)
@example(b'{"number": 1' + b"0" * 10_000 + b"}")
@example(b"\xff\xfe")
@example(b"")
def test_bytes_are_refused(payload: bytes) -> None:
    assert decoded(payload) is None


@given(JSON)
@settings(max_examples=150)
@example({"value": float("nan")})
@example({"value": 10**400})
@example({"trouble": "raised", "reason": 5, "details": []})
@example({"trouble": "lost", "reason": "a worker cannot say so"})
def test_an_entry_of_any_shape_is_a_finite_score_or_none(entry: object) -> None:
    for data in (entry, {**_plain_score(), **entry} if isinstance(entry, dict) else entry):
        reply = decoded(json.dumps({"number": 1, "verdicts": [data], "retired": ""}).encode())
        assert reply is not None
        (verdict,) = reply.verdicts
        assert verdict.score.value is None or math.isfinite(verdict.score.value)
        assert isinstance(verdict.score.reason, str)


def _plain_score() -> dict[str, object]:
    return {"value": 1.0, "correct": None, "answer": None, "token_values": [], "metrics": {}, "reason": ""}


@given(st.lists(st.binary(max_size=40), max_size=5), st.integers(1, 50))
@settings(max_examples=60)
def test_frames_are_found_however_they_are_cut(payloads: list[bytes], size: int) -> None:
    stream = b"".join(map(frame, payloads))
    inbox, found = Inbox(), []
    for start in range(0, len(stream), size):
        inbox.add(stream[start : start + size])
        while (payload := inbox.take()) is not None:
            found.append(payload)
    assert found == payloads


def test_a_reply_over_the_limit_is_replaced_by_a_refusal() -> None:
    reply = encode_reply(Reply(7, (Verdict(Score(value=1.0, answer="x" * (MAX_REPLY_BYTES + 1))),)))
    assert len(reply) < 1000
    (verdict,) = decode_reply(reply, 7, 1).verdicts
    assert verdict.trouble == "refused"
    assert "over the limit" in verdict.score.reason


@given(st.text())
@settings(max_examples=60)
def test_text_of_a_worker_cannot_command_a_terminal(text: str) -> None:
    assert all(c.isprintable() or c in "\n\t" for c in clip_text(text, 100))
    told = encode_reply(Reply(1, (failure("raised", "raised X", details=text),)))
    assert len(decode_reply(told, 1, 1).verdicts[0].details) <= 10 * len(text)

"""Whatever a server answers is a completion that was asked for, or a ValueError with one line."""

from __future__ import annotations

import copy
import json
import math
import random
from typing import Any

import pytest
from support.scripted_vllm import choice

from reasonrl_vllm.replies import made_by, most_bytes, read_answer, read_choices

VOCABULARY, EOS = 32, 7
ASKED = {"n": 2, "max_tokens": 4, "stop_token_ids": [EOS], "stop": ["</a>"]}
GOOD = {"choices": [choice(0, [3, 4, EOS], "w", finished="stop"), choice(1, [5, 6, 8, 9], "w")]}
NASTY: list[Any] = [
    None, True, False, -1, 0, 31, 32, 10**30, 1.5, math.nan, math.inf, -math.inf, 1e308, -9999.0, -9999.5, 0.1, "", "4",
    "\x1b[2J", "x" * 5000, [], [[]], {}, {"a": {}}, [3] * 50, "stop", "length", "abort", "error", "tool_calls", "</a>",
    [{"version": "w"}], [None], {"content": []}, {"content": [{}]}, {"content": [{"logprob": -1}] * 3},
]  # fmt: skip


def read(reply: Any) -> None:
    """As the engine does; whatever passes is what was asked for."""
    for found in read_choices(reply):
        assert all(isinstance(name, str) for name in made_by(found))
        answer = read_answer(found, ASKED, VOCABULARY)
        assert all(type(token) is int and 0 <= token < VOCABULARY for token in answer.token_ids)
        assert len(answer.token_ids) <= ASKED["max_tokens"]
        assert answer.token_ids or answer.finished in ("abort", "error")
        assert all(type(value) is float for value in answer.logprobs)


def test_what_a_server_writes_is_read() -> None:
    read(GOOD)
    read({"choices": [{**choice(0, [], "w", finished="abort"), "weight_versions": None}]})
    string = {**choice(0, [3], "w", finished="stop"), "stop_reason": "</a>"}
    assert read_answer(string, ASKED, VOCABULARY).stopped_by == "</a>"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"token_ids": [3, VOCABULARY]}, "not a list of ids from 0 to 31"),
        ({"token_ids": [-1]}, "not a list of ids"),
        ({"token_ids": [3.0]}, "not a list of ids"),
        ({"token_ids": [True]}, "not a list of ids"),
        ({"token_ids": "345"}, "not a list of ids"),
        ({"token_ids": [3] * 5}, "5 tokens, 4 asked for"),
        ({"token_ids": []}, "no tokens"),
        ({"logprobs": None}, "no list of log-probabilities"),
        ({"logprobs": {"content": [{"logprob": "-0.5"}]}}, "not a number"),
        ({"logprobs": {"content": [{"logprob": False}]}}, "not a number"),
        ({"logprobs": {"content": [{"logprob": -(10**400)}]}}, "not a number"),
        ({"finish_reason": "content_filter"}, "unknown finish_reason"),
        ({"finish_reason": None}, "unknown finish_reason"),
        ({"finish_reason": ["length"]}, "unknown finish_reason"),
        ({"finish_reason": "stop"}, "not an EOS token"),
        ({"finish_reason": "stop", "stop_reason": "</b>"}, "was not asked for"),
        ({"stop_reason": {}}, "unknown stop_reason"),
        ({"weight_versions": [3]}, "weight_versions"),
        ({"index": 1}, "not numbered"),
        ({"index": True}, "not numbered"),
    ],
)
def test_every_other_form_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        read({"choices": [{**choice(0, [3, 4], "w"), **changes}]})


def test_ten_thousand_replies() -> None:
    """One to three parts of a good reply replaced, removed or doubled. Seed 0."""
    rng, refused = random.Random(0), []
    text = json.dumps(GOOD)
    for _ in range(10_000):
        reply = json.loads(text)
        for _ in range(rng.randint(1, 3)):
            reply = mutated(reply, rng)
        try:
            read(reply)
        except ValueError as error:
            refused.append(str(error))
    assert 5_000 < len(refused) < 10_000
    assert max(map(len, refused)) < 200


def mutated(reply: Any, rng: random.Random) -> Any:
    """Change one place, found by a walk from the top."""
    if rng.random() < 0.02 or not isinstance(reply, list | dict) or not reply:
        return copy.deepcopy(rng.choice(NASTY))
    key = rng.choice(list(reply)) if isinstance(reply, dict) else rng.randrange(len(reply))
    kind = rng.random()
    if kind < 0.1:
        del reply[key]
    elif kind < 0.15 and isinstance(reply, list):
        reply.append(copy.deepcopy(reply[key]))
    else:
        reply[key] = mutated(reply[key], rng)
    return reply


def test_the_size_of_an_answer_grows_with_what_was_asked() -> None:
    assert most_bytes({"n": 8, "max_tokens": 1000}, 64) - most_bytes({}, 0) == 8 * 1000 * 1024
    assert most_bytes({}, 64) < 2**21

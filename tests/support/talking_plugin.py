"""A task that replies, a backend whose messages are scripted by the seed alone, and a reward of both."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from typing import Any

from reasonrl import (
    Completion,
    FinishReason,
    Message,
    Problem,
    RewardSpec,
    RolloutBackendSpec,
    RolloutGroup,
    RolloutRequest,
    Score,
    Split,
    TaskSpec,
    Transcript,
    Turn,
    hookimpl,
)


class Talk:
    """Answers every message with its length, three times; then the conversation is over."""

    def __init__(self, config: Any = None, context: Any = None) -> None: ...

    def size(self, split: Split) -> int | None:
        return None

    def problem(self, split: Split, index: int) -> Problem:
        return Problem(id=f"talk/{split}/{index}", prompt=f"{index}?", info={"n": index})

    def respond(self, transcript: Transcript) -> tuple[Turn | None, dict[str, Any]]:
        said = [*transcript.state.get("said", []), len(transcript.text)]
        return (Turn(content=f"[{said[-1]}]") if len(said) < 4 else None), {"said": said}


class Chat(Talk):
    """The same as messages for a chat template."""

    def problem(self, split: Split, index: int) -> Problem:
        prompt = (Message(role="user", content=f"{index}?"),)
        return Problem(id=f"chat/{split}/{index}", prompt=prompt, info={"n": index})

    def respond(self, transcript: Transcript) -> tuple[Turn | None, dict[str, Any]]:
        turn, state = super().respond(transcript)
        return (turn and Turn(content=(Message(role="user", content=str(turn.content)),))), state


class Judge:
    """Pays for even bytes that the model wrote, at the end of each of its messages."""

    def __init__(self, config: Any, context: Any) -> None: ...

    def score(self, problem: Problem, completion: Completion) -> Score:
        even = sum(ord(letter) % 2 == 0 for reply in completion.replies for letter in reply)
        credit = [0.0] * len(completion.token_ids)
        for at in completion.turn_ends:
            credit[at] = 0.125
        return Score(value=min(1.0, even / 16), correct=even > 8, token_values=tuple(credit))


EOS, FIRST = 256, 33
"""Of ``byte_tokenizer``: the EOS, and the byte of token 0."""


def scripted_completion(request: RolloutRequest, sample: int, version: int = 0, longest: int = 6) -> Completion:
    rng = random.Random(f"{request.seed}/{sample}")
    limit = request.sampling.max_completion_tokens
    ids = [rng.randrange(97, 123) - FIRST for _ in range(min(rng.randint(1, longest), limit))]
    reason = FinishReason.LENGTH if len(ids) == limit else rng.choice([FinishReason.STOP_STRING, FinishReason.EOS])
    text = "".join(chr(token + FIRST) for token in ids)
    if reason is FinishReason.EOS:
        ids.append(EOS)
    return Completion(
        token_ids=tuple(ids),
        logprobs=tuple(-5.0 * rng.random() for _ in ids),
        text=text,
        finish_reason=reason,
        policy_version=version,
    )


class Script:
    """Draws every message from the request's seed; keeps the requests of every call."""

    def __init__(self, config: Any = None, context: Any = None) -> None:
        self._version = 0
        self.calls: list[list[RolloutRequest]] = []

    def __enter__(self) -> Script:
        return self

    def __exit__(self, *exc: object) -> None: ...

    def sync_weights(self, weights: Any, *, policy_version: int) -> None:
        self._version = policy_version

    def generate(self, requests: Sequence[RolloutRequest]) -> list[RolloutGroup]:
        self.calls.append(list(requests))
        return [
            RolloutGroup(
                request=request,
                completions=tuple(scripted_completion(request, i, self._version) for i in range(request.group_size)),
            )
            for request in requests
        ]


@hookimpl
def reasonrl_tasks() -> Iterable[TaskSpec]:
    yield TaskSpec(name="talk", summary="Replies.", factory=Talk, default_rewards=("judge",))
    yield TaskSpec(name="chat", summary="Replies with messages.", factory=Chat, default_rewards=("judge",))


@hookimpl
def reasonrl_rewards() -> Iterable[RewardSpec]:
    yield RewardSpec(name="judge", summary="Even bytes.", factory=Judge, range=(0.0, 1.0))


@hookimpl
def reasonrl_rollout_backends() -> Iterable[RolloutBackendSpec]:
    yield RolloutBackendSpec(name="talking", summary="Scripted.", factory=Script)

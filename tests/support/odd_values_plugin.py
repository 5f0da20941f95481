"""A task and a backend that return odd values, by name."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
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
    Split,
    TaskSpec,
    Transcript,
    Turn,
    hookimpl,
)


@dataclass(frozen=True)
class OddConfig:
    odd: str = field(default="", metadata={"help": "what is odd"})


class Interrupts(dict[str, Any]):
    """A mapping that raises where it is read."""

    def keys(self) -> Any:
        raise KeyboardInterrupt

    __iter__ = keys


def message(**parts: Any) -> Message:
    return Message(**{"role": "user", "content": "?", **parts})


PROBLEMS: dict[str, dict[str, Any]] = {
    "id that is a number": {"id": 5},
    "prompt of bytes": {"prompt": b"?"},
    "prompt without messages": {"prompt": ()},
    "prompt of numbers": {"prompt": (message(content=5),)},
    "prompt of a wizard": {"prompt": (message(role="wizard"),)},
    "prefix that is None": {"assistant_prefix": None},
    "info that interrupts": {"info": Interrupts(a=1)},
    "info that is nested deeply": {"info": {"a": json.loads("[" * 900 + "]" * 900)}},
}
REPLIES: dict[str, Any] = {
    "turn of bytes": (Turn(content=(message(content=b"?"),)), {}),  # type: ignore[arg-type]
    "turn without text": (Turn(content=(message(content=None),)), {}),
    "turn of the model": (Turn(content=(message(role="assistant"),)), {}),
    "turn of a wizard": (Turn(content=(message(role="wizard"),)), {}),
    "state that interrupts": (Turn(content=(message(),)), Interrupts(a=1)),
}


class OddTask:
    def __init__(self, config: OddConfig, context: Any) -> None:
        self._odd = config.odd
        if config.odd in REPLIES:
            self.respond = self._respond

    def size(self, split: Split) -> int | None:
        return None

    def problem(self, split: Split, index: int) -> Problem:
        prompt = (message(),) if self._odd in REPLIES else f"{index}+1="
        fields = {"id": f"odd/{split}/{index}", "prompt": prompt, **PROBLEMS.get(self._odd, {})}
        return Problem(**fields)

    def _respond(self, transcript: Transcript) -> Any:
        if transcript.problem.id.endswith("/0"):
            return REPLIES[self._odd]
        return None, {}


class OddReward:
    def __init__(self, config: Any, context: Any) -> None: ...

    def score(self, problem: Problem, completion: Completion) -> float:
        return float(len(completion.text) % 2)


COMPLETIONS: dict[str, dict[str, Any]] = {
    "negative id": {"token_ids": (97, -1)},
    "id over the vocabulary": {"token_ids": (97, 258)},
    "id over 64 bits": {"token_ids": (97, 2**70)},
    "ids that are fractions": {"token_ids": (97.5, 98)},
    "ids that are text": {"token_ids": "ab"},
    "no ids": {"token_ids": None},
    "too few logprobs": {"logprobs": (-1.0,)},
    "logprobs that are text": {"logprobs": ("a", "b")},
    "text that is None": {"text": None},
    "reason that is text": {"finish_reason": "length"},
    "version that is None": {"policy_version": None},
}
GROUPS: dict[str, Callable[[list[RolloutGroup]], Any]] = {
    "no groups": lambda groups: None,
    "endless groups": lambda groups: _endless(groups[0]),
    "too few groups": lambda groups: groups[1:],
    "groups in another order": lambda groups: groups[::-1],
    "groups of numbers": lambda groups: [5] * len(groups),
    "endless completions": lambda groups: [replace(g, completions=_endless(g.completions[0])) for g in groups],
    "completions of numbers": lambda groups: [replace(g, completions=(5,) * len(g.completions)) for g in groups],
}


def _endless(one: Any) -> Iterator[Any]:
    while True:
        yield one


class OddBackend:
    def __init__(self, config: OddConfig, context: Any) -> None:
        self._odd, self._version = config.odd, 0

    def __enter__(self) -> OddBackend:
        return self

    def __exit__(self, *exc: object) -> None: ...

    def sync_weights(self, weights: Any, *, policy_version: int) -> None:
        self._version = policy_version

    def generate(self, requests: Sequence[RolloutRequest]) -> Any:
        groups = [RolloutGroup(request=r, completions=(self._one(),) * r.group_size) for r in requests]
        return GROUPS.get(self._odd, list)(groups)

    def _one(self) -> Completion:
        fields = {
            "token_ids": (97, 98),
            "logprobs": (-1.0, -2.0),
            "text": "ab",
            "finish_reason": FinishReason.STOP_STRING,
            "policy_version": self._version,
        }
        return Completion(**{**fields, **COMPLETIONS.get(self._odd, {})})


@hookimpl
def reasonrl_tasks() -> Iterable[TaskSpec]:
    yield TaskSpec(name="odd", summary="Odd.", config=OddConfig, factory=OddTask, default_rewards=("odd_length",))


@hookimpl
def reasonrl_rewards() -> Iterable[RewardSpec]:
    yield RewardSpec(name="odd_length", summary="Odd.", factory=OddReward)


@hookimpl
def reasonrl_rollout_backends() -> Iterable[RolloutBackendSpec]:
    yield RolloutBackendSpec(name="odd", summary="Odd.", config=OddConfig, factory=OddBackend)

"""A backend whose completions depend on the request alone, a task and a reward: runs that are all update."""

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from reasonrl import (
    Completion,
    FinishReason,
    Problem,
    RewardSpec,
    RolloutBackendSpec,
    RolloutGroup,
    RolloutRequest,
    Split,
    TaskSpec,
    hookimpl,
)


class Numbers:
    """Problem i is the text of i."""

    def __init__(self, config: Any, context: Any) -> None: ...

    def size(self, split: Split) -> int | None:
        return None

    def problem(self, split: Split, index: int) -> Problem:
        return Problem(id=f"numbers/{split}/{index}", prompt=f"{index}+1=", info={"n": index})

    def demonstration(self, problem: Problem, rng: random.Random) -> str:
        return str(problem.info["n"] + rng.randrange(3))


class Parity:
    """Pays for completions with many even bytes."""

    def __init__(self, config: Any, context: Any) -> None: ...

    def score(self, problem: Problem, completion: Completion) -> float:
        ids = completion.token_ids
        return round(sum(i % 2 == 0 for i in ids) / len(ids), 1)


@dataclass(frozen=True)
class ScriptConfig:
    longest: int = 8


class Script:
    """Draws every completion from the request's seed; the policy has no say."""

    def __init__(self, config: ScriptConfig, context: Any) -> None:
        self._config, self._version = config, 0

    def __enter__(self) -> "Script":
        return self

    def __exit__(self, *exc: object) -> None: ...

    def sync_weights(self, weights: Any, *, policy_version: int) -> None:
        self._version = policy_version

    def generate(self, requests: Sequence[RolloutRequest]) -> list[RolloutGroup]:
        return [
            RolloutGroup(request=r, completions=tuple(self._one(r, i) for i in range(r.group_size))) for r in requests
        ]

    def _one(self, request: RolloutRequest, sample: int) -> Completion:
        rng = random.Random(f"{request.seed}/{sample}")
        ids = tuple(rng.randrange(97, 123) for _ in range(rng.randint(1, self._config.longest)))
        return Completion(
            token_ids=ids,
            logprobs=tuple(-5.0 * rng.random() for _ in ids),
            text=bytes(ids).decode("ascii"),
            finish_reason=rng.choice([FinishReason.STOP_STRING, FinishReason.LENGTH]),
            policy_version=self._version,
        )


@hookimpl
def reasonrl_tasks() -> Iterable[TaskSpec]:
    yield TaskSpec(name="numbers", summary="n+1.", factory=Numbers, default_rewards=("parity",))


@hookimpl
def reasonrl_rewards() -> Iterable[RewardSpec]:
    yield RewardSpec(name="parity", summary="Even bytes.", factory=Parity)


@hookimpl
def reasonrl_rollout_backends() -> Iterable[RolloutBackendSpec]:
    yield RolloutBackendSpec(name="script", summary="Scripted.", config=ScriptConfig, factory=Script)

"""A backend whose completions depend on the request alone, a task, a reward and an algorithm that filters groups."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from reasonrl import (
    AlgorithmSpec,
    Completion,
    FinishReason,
    Needs,
    Problem,
    RewardSpec,
    RolloutBackendSpec,
    RolloutGroup,
    RolloutRequest,
    RunInfo,
    ScoredGroup,
    Split,
    StepRecord,
    TaskSpec,
    hookimpl,
)

if TYPE_CHECKING:  # it needs torch, and a resume shows something before that is loaded
    from reasonrl.contracts.batch import AdvantageOutput, LossInput, LossNormalizer, LossOutput


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


def is_picked(number: int) -> bool:
    """About two problems in five."""
    return random.Random(f"picked/{number}").random() < 0.4


class Picky:
    """REINFORCE on the groups of the picked problems."""

    def __init__(self, config: Any, context: Any) -> None: ...

    def keep(self, group: ScoredGroup) -> bool:
        return is_picked(group.group.request.problem.info["n"])

    def compute_advantages(self, batch: Any, evals: Any, ctx: Any) -> AdvantageOutput:
        from reasonrl.contracts.batch import AdvantageOutput

        return AdvantageOutput(advantages=(batch.rewards - 0.5)[:, None] * batch.response_mask)

    def compute_loss(self, inputs: LossInput, normalizer: LossNormalizer, ctx: Any) -> LossOutput:
        from reasonrl.contracts.batch import LossOutput

        loss = -(inputs.logprobs * inputs.advantages.advantages).sum() / normalizer.num_response_tokens
        return LossOutput(loss=loss)


@dataclass(frozen=True)
class ScriptConfig:
    longest: int = 8


class Script:
    """Draws every completion from the request's seed; the policy has no say."""

    def __init__(self, config: ScriptConfig, context: Any) -> None:
        self._config, self._version = config, 0

    def __enter__(self) -> Script:
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
def reasonrl_algorithms() -> Iterable[AlgorithmSpec]:
    yield AlgorithmSpec(name="picky", summary="Filters.", factory=Picky, needs=lambda config: Needs())


@hookimpl
def reasonrl_step_finished(run: RunInfo, record: StepRecord, groups: Sequence[ScoredGroup]) -> None:
    """Which problems a process of a run with ``picky`` has trained on; processes have folders of their own."""
    if run.recipe.get("algorithm", {}).get("name") == "picky":
        line = {"step": record.step, "trained": [group.group.request.problem.info["n"] for group in groups]}
        run.run_dir.mkdir(parents=True, exist_ok=True)
        with (run.run_dir / "trained.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


@hookimpl
def reasonrl_rollout_backends() -> Iterable[RolloutBackendSpec]:
    yield RolloutBackendSpec(name="script", summary="Scripted.", config=ScriptConfig, factory=Script)

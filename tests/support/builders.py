"""Short ways to make groups, rewards and tasks for tests of the core's own parts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from reasonrl import (
    Completion,
    FinishReason,
    NoConfig,
    Problem,
    RewardContext,
    RewardOutput,
    RewardSpec,
    RolloutGroup,
    RolloutRequest,
    SamplingParams,
    ScoredGroup,
    Split,
)
from reasonrl.rewards.runner import RewardRunner


def completion(
    ids: Sequence[int] = (1, 2),
    *,
    text: str = "x",
    reason: FinishReason = FinishReason.EOS,
    logprobs: Sequence[float] | None = None,
    version: int = 0,
) -> Completion:
    return Completion(
        token_ids=tuple(ids),
        logprobs=None if logprobs is None else tuple(logprobs),
        text=text,
        finish_reason=reason,
        policy_version=version,
    )


def group(completions: Sequence[Completion], *, prompt: Sequence[int] = (7,), **info: Any) -> RolloutGroup:
    request = RolloutRequest(
        problem=Problem(id="p", prompt="say", info=info),
        prompt_ids=tuple(prompt),
        group_size=len(completions),
        sampling=SamplingParams(),
        seed=0,
    )
    return RolloutGroup(request=request, completions=tuple(completions))


def output(total: float | None, **fields: Any) -> RewardOutput:
    return RewardOutput(total=total, components={"r": total}, **fields)


def scored(totals: Sequence[float | None], *, prompt: Sequence[int] = (7,), lengths: Sequence[int] = ()) -> ScoredGroup:
    """A group with these rewards; 1.0 is correct, and the answer is the reward in words."""
    sizes = lengths or [2] * len(totals)
    rewards = tuple(
        output(t, correct=None if t is None else t == 1.0, answer=None if t is None else str(t)) for t in totals
    )
    return ScoredGroup(group=group([completion(range(n)) for n in sizes], prompt=prompt), rewards=rewards)


@dataclass(frozen=True)
class Slot:
    """A reward of a recipe, resolved."""

    spec: RewardSpec
    weight: float = 1.0
    config: Any = field(default_factory=NoConfig)


class Direct:
    """Builds a component by calling its factory."""

    def build(self, spec: Any, config: Any, context: Any) -> Any:
        return spec.factory(config, context)


class Judge:
    """A reward that is a function of problem and completion."""

    def __init__(self, function: Callable[[Problem, Completion], Any]) -> None:
        self.function = function
        self.asked = 0

    def score(self, problem: Problem, completion: Completion) -> Any:
        self.asked += 1
        return self.function(problem, completion)


class GroupJudge:
    """A reward that is a function of a whole group."""

    def __init__(self, function: Callable[[RolloutGroup], Any]) -> None:
        self.function = function

    def score_group(self, group: RolloutGroup) -> Any:
        return self.function(group)


def runner(*rewards: Any, weights: Sequence[float] = (), top: float = 1.0) -> RewardRunner:
    """A runner of rewards named a, b, c ... with range (0, top)."""
    slots = {}
    for name, reward, weight in zip("abcdef", rewards, weights or [1.0] * len(rewards), strict=False):
        spec = RewardSpec(name=name, summary=name, factory=lambda config, context, made=reward: made, range=(0.0, top))
        slots[name] = Slot(spec, weight)
    return RewardRunner.build(slots, Direct(), RewardContext())


class Numbers:
    """A task whose problem at index i is the text of i; ``size`` None is unbounded."""

    def __init__(self, size: int | None = None) -> None:
        self._size = size

    def size(self, split: Split) -> int | None:
        return self._size

    def problem(self, split: Split, index: int) -> Problem:
        return Problem(id=f"{split}/{index}", prompt=str(index), info={"n": index})

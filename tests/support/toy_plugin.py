"""A small plugin with one component of every kind, for tests of the door and of recipes."""

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from reasonrl import (
    AlgorithmSpec,
    Completion,
    ModelSpec,
    Needs,
    Problem,
    RewardSpec,
    RolloutBackendSpec,
    Split,
    TaskContext,
    TaskSpec,
    hookimpl,
)


@dataclass(frozen=True)
class Nested:
    coef: float = field(default=0.0, metadata={"help": "a nested option"})

    def __post_init__(self) -> None:
        if not self.coef >= 0:
            raise ValueError(f"nested.coef must be >= 0, got {self.coef}")


@dataclass(frozen=True)
class ToyConfig:
    low: int = field(default=1, metadata={"help": "smallest number"})
    high: int = field(default=9, metadata={"help": "largest number"})
    words: list[str] = field(default_factory=list)
    token: str = ""

    def __post_init__(self) -> None:
        if self.low > self.high:
            raise ValueError(f"low must be <= high, got {self.low} and {self.high}")


@dataclass(frozen=True)
class AlgorithmConfig:
    clip_eps: float = 0.2
    mode: Literal["a", "b"] = "a"
    enabled: bool = True
    nested: Nested = field(default_factory=Nested)


@dataclass(frozen=True)
class BackendConfig:
    rows: int = 4


class ToyTask:
    def __init__(self, config: ToyConfig, context: TaskContext) -> None:
        self.config, self.seed = config, context.seed

    def size(self, split: Split) -> int | None:
        return None if split == "train" else 5

    def problem(self, split: Split, index: int) -> Problem:
        number = random.Random(f"{self.seed}/{split}/{index}").randint(self.config.low, self.config.high)
        return Problem(id=f"toy/{split}/{index}", prompt=f"Say {number}.", assistant_prefix=">", info={"n": number})

    def reference(self, problem: Problem) -> str:
        return str(problem.info["n"])


class ToyReward:
    def __init__(self, config: Any, context: Any) -> None: ...

    def score(self, problem: Problem, completion: Completion) -> float:
        return float(completion.text == str(problem.info["n"]))


def build_nothing(config: Any, context: Any) -> Mapping[str, Any]:
    return {"config": config, "context": context}


@hookimpl
def reasonrl_tasks() -> Iterable[TaskSpec]:
    yield TaskSpec(name="toy", summary="Say it.", config=ToyConfig, factory=ToyTask, default_rewards=("toy_reward",))
    yield TaskSpec(name="bare", summary="Names no rewards.", factory=build_nothing)


@hookimpl
def reasonrl_rewards() -> Sequence[RewardSpec]:
    return [RewardSpec(name="toy_reward", summary="1.0 for the number.", factory="support.toy_plugin:ToyReward")]


@hookimpl
def reasonrl_algorithms() -> Iterable[AlgorithmSpec]:
    def spec(name: str, needs: Needs) -> AlgorithmSpec:
        return AlgorithmSpec(
            name=name, summary=name, config=AlgorithmConfig, factory=build_nothing, needs=lambda _: needs
        )

    yield spec("plain", Needs())
    yield spec("grouped", Needs(min_group_size=2))
    yield spec("critical", Needs(critic=True))


@hookimpl
def reasonrl_rollout_backends() -> Iterable[RolloutBackendSpec]:
    yield RolloutBackendSpec(name="backend", summary="Samples.", config=BackendConfig, factory=build_nothing)
    yield RolloutBackendSpec(
        name="absent",
        summary="Needs a module that nobody has.",
        factory=build_nothing,
        modules=("no_such_module_anywhere",),
        install="pip install no-such-backend",
    )


@hookimpl
def reasonrl_models() -> Iterable[ModelSpec]:
    yield ModelSpec(name="toy-base", summary="A folder.", path=Path(__file__).parent)
    yield ModelSpec(name="lost-base", summary="No folder.", path=Path(__file__).parent / "nowhere")

"""A plugin whose parts fail on command: a task, a reward, an algorithm and a backend."""

import random
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from reasonrl import (
    AlgorithmSpec,
    Completion,
    Needs,
    Problem,
    RewardSpec,
    RolloutBackendSpec,
    ScoredGroup,
    Split,
    TaskContext,
    TaskSpec,
    hookimpl,
)
from reasonrl.contracts.batch import (
    AdvantageOutput,
    LossInput,
    LossNormalizer,
    LossOutput,
    PolicyEval,
    StepContext,
    TrainBatch,
)
from reasonrl.errors import RolloutError
from reasonrl.signals import CtrlC


@dataclass(frozen=True)
class CountingConfig:
    problems: int = field(default=-1, metadata={"help": "size of a split; -1 = unbounded"})
    long_at: int = field(default=-1, metadata={"help": "this problem's prompt is 500 tokens long"})


class Counting:
    """Problem i is the text of i. Its demonstration is the next number."""

    def __init__(self, config: CountingConfig, context: TaskContext) -> None:
        self._config = config

    def size(self, split: Split) -> int | None:
        return None if self._config.problems < 0 else self._config.problems

    def problem(self, split: Split, index: int) -> Problem:
        prompt = "9" * 500 if index == self._config.long_at else f"{index}+1="
        return Problem(id=f"counting/{split}/{index}", prompt=prompt, info={"n": index})

    def demonstration(self, problem: Problem, rng: random.Random) -> str:
        return str(problem.info["n"] + 1)


@dataclass(frozen=True)
class FlakyConfig:
    fail_every: int = field(default=0, metadata={"help": "every so many completions it raises; 0 = never"})
    interrupt_at: int = field(default=0, metadata={"help": "the completion at which the user presses Ctrl-C"})
    silent_at: list[int] = field(default_factory=list, metadata={"help": "problems it cannot score"})


class Flaky:
    """Pays for the length of the text, unless it is told to fail."""

    def __init__(self, config: FlakyConfig, context: Any) -> None:
        self._config = config
        self._asked = 0

    def score(self, problem: Problem, completion: Completion) -> float:
        self._asked += 1
        if problem.info["n"] in self._config.silent_at and problem.id.startswith("counting/train/"):
            raise ValueError("no score for this one")
        if self._asked == self._config.interrupt_at:
            raise CtrlC
        if self._config.fail_every and self._asked % self._config.fail_every == 0:
            raise ZeroDivisionError("the reward's own bug")
        return (len(completion.text) % 5) / 4


@dataclass(frozen=True)
class SabotageConfig:
    pattern: list[str] = field(default_factory=list, metadata={"help": "ok, nan, inf_loss or bad_grad, a call"})
    keep_every: int = field(
        default=1, metadata={"help": "keeps the groups of every so many problems; below 0 = raises"}
    )


class Sabotage:
    """REINFORCE, with losses that go wrong by a pattern; after its end everything is fine."""

    def __init__(self, config: SabotageConfig, context: Any = None) -> None:
        if "unbuildable" in config.pattern:
            raise ValueError("pattern cannot be built")
        self._pattern = list(config.pattern)
        self._keep_every = config.keep_every

    def keep(self, group: ScoredGroup) -> bool:
        number = group.group.request.problem.info["n"]
        if self._keep_every < 0:
            raise KeyError("lost")
        return self._keep_every > 0 and number % self._keep_every == 0

    def compute_advantages(self, batch: TrainBatch, evals: PolicyEval, ctx: StepContext) -> AdvantageOutput:
        return AdvantageOutput(advantages=(batch.rewards - 0.5)[:, None] * batch.response_mask)

    def compute_loss(self, inputs: LossInput, normalizer: LossNormalizer, ctx: StepContext) -> LossOutput:
        logprobs = inputs.logprobs
        loss = -(logprobs * inputs.advantages.advantages).sum() / normalizer.num_response_tokens
        kind = self._pattern.pop(0) if self._pattern else "ok"
        if kind == "nan":
            loss = loss * float("nan")
        elif kind == "inf_loss":
            loss = loss + float("inf")
        elif kind == "bad_grad":
            # The root's value at 0 is finite, its slope is not.
            loss = loss + (logprobs - logprobs.detach()).sum().clamp(min=0).sqrt()
        elif kind != "ok":
            raise ValueError(kind)
        return LossOutput(loss=loss)

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        assert not state.keys()


class AbsentBackend:
    """Its server does not run."""

    def __init__(self, config: Any, context: Any) -> None: ...

    def __enter__(self) -> Any:
        raise RolloutError("the backend's server does not answer; start it first")

    def __exit__(self, *exc: object) -> None: ...


@hookimpl
def reasonrl_tasks() -> Iterable[TaskSpec]:
    yield TaskSpec(name="counting", summary="n+1.", config=CountingConfig, factory=Counting, default_rewards=("flaky",))


@hookimpl
def reasonrl_rewards() -> Iterable[RewardSpec]:
    yield RewardSpec(name="flaky", summary="Fails on command.", config=FlakyConfig, factory=Flaky)


@hookimpl
def reasonrl_algorithms() -> Iterable[AlgorithmSpec]:
    yield AlgorithmSpec(
        name="sabotage",
        summary="Goes wrong on command.",
        config=SabotageConfig,
        factory=Sabotage,
        needs=lambda config: Needs(),
    )


@hookimpl
def reasonrl_rollout_backends() -> Iterable[RolloutBackendSpec]:
    yield RolloutBackendSpec(name="deaf", summary="Never starts.", factory=AbsentBackend)

"""A plugin that is given secrets and, on command, tells them to whoever listens."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import psutil

from reasonrl import (
    AlgorithmSpec,
    Completion,
    Needs,
    Problem,
    RewardSpec,
    RunInfo,
    Score,
    Split,
    StepRecord,
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
from reasonrl.contracts.metrics import mean


@dataclass(frozen=True)
class VaultConfig:
    api_key: str = field(default="", metadata={"help": "by its name a secret"})
    endpoint: str = field(default="", metadata={"help": "a URL with a password in it"})
    note: str = field(default="", metadata={"help": "by its name no secret"})
    tells: str = field(default="", metadata={"help": "factory, problem or check: where it blurts it all out"})

    def __post_init__(self) -> None:
        if self.tells == "check":
            raise ValueError(f"note must be shorter than {self.note}, at {self.endpoint}")


class Vault:
    """n + 1, and secrets that nobody needs."""

    def __init__(self, config: VaultConfig, context: TaskContext) -> None:
        self._config = config
        if config.tells == "factory":
            raise ValueError(f"cannot log in with {config}")

    def size(self, split: Split) -> int | None:
        return None

    def problem(self, split: Split, index: int) -> Problem:
        if self._config.tells == "problem" and index == 2:
            raise ConnectionError(f"refused: {self._config}")
        info: dict[str, Any] = {"n": index}
        if self._config.tells == "info":
            print("printed by a task:", self._config.note)  # noqa: T201 - as plugins do
            info |= {"note": self._config.note, self._config.note: [{"at": self._config.endpoint}]}
        return Problem(id=f"vault/{split}/{index}", prompt=f"{index}+1=", info=info)

    def difficulty(self, problem: Problem) -> str:
        return self._config.note if self._config.tells == "info" else "all"


@dataclass(frozen=True)
class GuardConfig:
    password: str = ""
    tells: bool = False
    scores: bool = False


class Guard:
    """Pays for length; may name its password in an exception."""

    def __init__(self, config: GuardConfig, context: Any) -> None:
        self._config = config
        self._asked = 0

    def score(self, problem: Problem, completion: Completion) -> float | Score:
        self._asked += 1
        if self._config.scores:
            told = self._config.password
            return Score(value=0.5, reason=f"because of {told}", answer=told, metrics={told: 1.0})
        if self._config.tells and self._asked % 8 == 0:
            raise PermissionError(f"password {self._config.password} was refused")
        return (len(completion.text) % 5) / 4


@dataclass(frozen=True)
class OpenConfig:
    license_key: str = ""
    tells: bool = False
    measures: bool = False


class Open:
    """REINFORCE; may end the run with its key in a traceback."""

    def __init__(self, config: OpenConfig, context: Any) -> None:
        self._config = config

    def compute_advantages(self, batch: TrainBatch, evals: PolicyEval, ctx: StepContext) -> AdvantageOutput:
        if self._config.tells:
            raise RuntimeError(f"the key {self._config.license_key} has expired")
        metrics = {f"open/{self._config.license_key}": mean(1.0, 1.0)} if self._config.measures else {}
        return AdvantageOutput(advantages=(batch.rewards - 0.5)[:, None] * batch.response_mask, metrics=metrics)

    def compute_loss(self, inputs: LossInput, normalizer: LossNormalizer, ctx: StepContext) -> LossOutput:
        loss = -(inputs.logprobs * inputs.advantages.advantages).sum() / normalizer.num_response_tokens
        return LossOutput(loss=loss)


@hookimpl
def reasonrl_tasks() -> Iterable[TaskSpec]:
    yield TaskSpec(name="vault", summary="n+1.", config=VaultConfig, factory=Vault, default_rewards=("guard",))


@hookimpl
def reasonrl_rewards() -> Iterable[RewardSpec]:
    yield RewardSpec(name="guard", summary="Pays for length.", config=GuardConfig, factory=Guard)


@hookimpl
def reasonrl_algorithms() -> Iterable[AlgorithmSpec]:
    yield AlgorithmSpec(
        name="open", summary="REINFORCE.", config=OpenConfig, factory=Open, needs=lambda config: Needs()
    )


@hookimpl
def reasonrl_run_finished(run: RunInfo) -> None:
    raise ValueError(f"an observer shows all it was told: {run.recipe}")


LISTENING: list[str] = []
"""Sockets that anything of a run waits for connections on, as seen at the end of each step."""


@hookimpl
def reasonrl_step_finished(record: StepRecord) -> None:
    own = psutil.Process()
    for process in (own, *own.children(recursive=True)):
        found = process.net_connections(kind="inet")
        LISTENING.extend(str(c.laddr) for c in found if c.status == psutil.CONN_LISTEN)
    LISTENING.append(f"asked after step {record.step}")

"""A plugin that fails at a chosen call of a chosen part, in a chosen way, as long as a file exists."""

import asyncio
import os
import signal
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from support.scripted_plugin import Numbers, Parity, Script, ScriptConfig

from reasonrl import (
    AlgorithmSpec,
    Completion,
    DataSummary,
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
from reasonrl.contracts.batch import (
    AdvantageOutput,
    LossInput,
    LossNormalizer,
    LossOutput,
    PolicyEval,
    StepContext,
    TrainBatch,
)
from reasonrl.errors import RecipeError
from reasonrl.signals import CtrlC


class UnprintableError(Exception):
    """It cannot even be shown."""

    def __str__(self) -> str:
        raise ValueError("no text")


ERRORS: Mapping[str, Callable[[], Any]] = {
    "key": lambda: KeyError("lost"),
    "memory": MemoryError,
    "gpu memory": lambda: torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    "allocation": lambda: torch.empty(1 << 50),  # which fails by itself
    "cpu memory": lambda: RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried 9 bytes"),
    "exit": lambda: SystemExit(3),
    "unprintable": UnprintableError,
    "torch": lambda: RuntimeError("CUDA error: device-side assert triggered\nCompile with TORCH_USE_CUDA_DSA"),
    "disk": lambda: OSError(28, "No space left on device"),
    "recipe": lambda: RecipeError("the prompt of problem 'p' has 300 tokens"),
    "canceled": asyncio.CancelledError,
    "interrupt": CtrlC,
    "killed": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "hung": lambda: (time.sleep(20), os._exit(1)),
}


class Trap:
    """Counts the calls of every site, and raises at one of them."""

    def __init__(self) -> None:
        self.site, self.error, self.call, self.rank, self.file = "", "key", 0, 0, Path("nowhere")
        self.calls: dict[str, int] = {}

    def set(self, file: Path, site: str, error: str, call: int, rank: int = 0) -> None:
        self.site, self.error, self.call, self.rank, self.file = site, error, call, rank, file
        self.calls = {}
        file.touch()

    def reached(self, site: str) -> None:
        self.calls[site] = self.calls.get(site, 0) + 1
        is_here = site == self.site and self.calls[site] == self.call
        if is_here and self.file.exists() and int(os.environ.get("RANK", "0")) == self.rank:
            raise ERRORS[self.error]()


TRAP = Trap()


@dataclass(frozen=True)
class TrapConfig:
    """For processes of their own; tests in this one set TRAP."""

    file: str = field(default="", metadata={"help": "fails while it exists"})
    site: str = field(default="", metadata={"help": "where"})
    error: str = field(default="key", metadata={"help": "what"})
    call: int = field(default=0, metadata={"help": "at which call"})
    rank: int = field(default=0, metadata={"help": "in which process"})


class BrokenBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, loss: torch.Tensor) -> torch.Tensor:
        return loss.clone()

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        TRAP.reached("backward")
        return grad


class Reinforce:
    def __init__(self, config: TrapConfig, context: Any) -> None:
        self._seen = 0.0
        TRAP.reached("algorithm")
        if config.file and Path(config.file).exists():
            TRAP.set(Path(config.file), config.site, config.error, config.call, config.rank)

    def keep(self, group: ScoredGroup) -> bool:
        TRAP.reached("keep")
        return True

    def counts(self, batch: TrainBatch, advantages: AdvantageOutput) -> dict[str, float]:
        TRAP.reached("counts")
        return {"rows": float(batch.num_rows)}

    def compute_advantages(self, batch: TrainBatch, evals: PolicyEval, ctx: StepContext) -> AdvantageOutput:
        self._seen += float(batch.rewards.sum())  # a controller's state that a broken step must not leave behind
        TRAP.reached("compute_advantages")
        return AdvantageOutput(advantages=(batch.rewards - 0.5)[:, None] * batch.response_mask)

    def compute_loss(self, inputs: LossInput, normalizer: LossNormalizer, ctx: StepContext) -> LossOutput:
        TRAP.reached("compute_loss")
        loss = -(inputs.logprobs * inputs.advantages.advantages).sum() / normalizer.num_response_tokens
        return LossOutput(loss=BrokenBackward.apply(loss))  # type: ignore[no-untyped-call]

    def after_step(self, metrics: Mapping[str, float]) -> None:
        TRAP.reached("after_step")

    def state_dict(self) -> dict[str, float]:
        TRAP.reached("state_dict")
        return {"seen": self._seen}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        TRAP.reached("load_state_dict")
        self._seen = state["seen"]


class TrappedNumbers(Numbers):
    def __init__(self, config: Any, context: Any) -> None:
        TRAP.reached("task")

    def size(self, split: Split) -> int | None:
        TRAP.reached(f"size/{split}")
        return super().size(split)

    def data_summary(self) -> Sequence[DataSummary]:
        TRAP.reached("data_summary")
        return ()

    def behaviors(self, problem: Problem, completion_text: str) -> Mapping[str, float]:
        TRAP.reached("behaviors")
        return {"letters": float(len(completion_text))}

    def problem_from_fields(self, fields: Mapping[str, str]) -> Problem:
        TRAP.reached("problem_from_fields")
        return super().problem("eval", int(fields["n"]))

    def problem(self, split: Split, index: int) -> Problem:
        TRAP.reached(f"problem/{split}")
        return super().problem(split, index)

    def demonstration(self, problem: Problem, rng: Any) -> str:
        TRAP.reached("demonstration")
        return super().demonstration(problem, rng)


class TrappedParity(Parity):
    def score(self, problem: Problem, completion: Completion) -> float:
        TRAP.reached("score")
        return super().score(problem, completion)


class TrappedScript(Script):
    def __enter__(self) -> Script:
        TRAP.reached("enter")
        return super().__enter__()

    def generate(self, requests: Sequence[RolloutRequest]) -> list[RolloutGroup]:
        TRAP.reached("generate")
        return super().generate(requests)

    def sync_weights(self, weights: Any, *, policy_version: int) -> None:
        TRAP.reached("sync_weights")
        super().sync_weights(weights, policy_version=policy_version)

    def __exit__(self, *exc: object) -> None:
        TRAP.reached("exit")


def needs(config: TrapConfig) -> Needs:
    TRAP.reached("needs")
    return Needs()


@hookimpl
def reasonrl_tasks() -> Iterable[TaskSpec]:
    yield TaskSpec(name="numbers", summary="n+1.", factory=TrappedNumbers, default_rewards=("parity",))


@hookimpl
def reasonrl_rewards() -> Iterable[RewardSpec]:
    yield RewardSpec(name="parity", summary="Even bytes.", factory=TrappedParity)


@hookimpl
def reasonrl_algorithms() -> Iterable[AlgorithmSpec]:
    yield AlgorithmSpec(
        name="trap",
        summary="REINFORCE.",
        factory=Reinforce,
        config=TrapConfig,
        needs=needs,
    )


@hookimpl
def reasonrl_rollout_backends() -> Iterable[RolloutBackendSpec]:
    yield RolloutBackendSpec(name="script", summary="Scripted.", config=ScriptConfig, factory=TrappedScript)


@hookimpl
def reasonrl_run_started(run: RunInfo) -> None:
    TRAP.reached("run_started")


@hookimpl
def reasonrl_run_finished(run: RunInfo, outcome: str) -> None:
    TRAP.reached("run_finished")


@hookimpl
def reasonrl_step_finished(run: RunInfo, record: StepRecord, groups: Sequence[ScoredGroup]) -> None:
    TRAP.reached("step_finished")

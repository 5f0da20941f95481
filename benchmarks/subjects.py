"""The runs that the speed benchmarks time: a real trainer's steps, without a run folder."""

import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from reasonrl import RewardOutput, RolloutGroup, RolloutRequest, ScoredGroup
from reasonrl.observability.reporter import SilentReporter
from reasonrl.plugins import load_plugins
from reasonrl.recipe.load import load_recipe
from reasonrl.runs.assemble import _RlSetup
from reasonrl.runs.build import Builder, load_bundle, quiet_libraries
from reasonrl.signals import StopSignals
from reasonrl.trainer.peak import measure_flops

RECIPE = """
name: benchmark
model: {{{model}, dtype: float32}}
task: {{name: countdown, template: {template}, min_numbers: 3, max_numbers: 3, min_number: 1, max_number: 20,
  min_target: 1, max_target: 100}}
algorithm: {{name: grpo}}
sampling: {{group_size: {group}, max_prompt_tokens: 512, max_completion_tokens: {tokens}}}
# So low that the weights, and with them the lengths, stay what they are; the work of the optimizer is the same.
optimizer: {{learning_rate: 1.0e-12}}
trainer: {{steps: 1000, prompts_per_step: {prompts}, max_tokens_per_microbatch: {microbatch}}}
evaluation: {{every: 0}}
"""


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A model and the size of a step. ``fixed``: no completion ends before ``tokens``."""

    model: str = "countdown-base"
    prompts: int = 48
    group: int = 8
    tokens: int = 220
    fixed: bool = False
    every_row: bool = True
    microbatch: int = 2048
    overrides: tuple[str, ...] = ()

    @property
    def is_folder(self) -> bool:
        return Path(self.model).is_dir()

    @property
    def name(self) -> str:
        model = Path(self.model).resolve().parent.name + "/" + Path(self.model).name if self.is_folder else self.model
        ends = "equal lengths" if self.fixed else "natural lengths"
        rewards = "every row trained" if self.every_row else "the task's rewards"
        return f"{model} {self.prompts}x{self.group}, up to {self.tokens} tokens, {ends}, {rewards}"

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def from_json(fields: dict[str, Any]) -> Subject:
    return Subject(**{**fields, "overrides": tuple(fields["overrides"])})


class Bench:
    """The trainer of a recipe with its model and backend."""

    def __init__(self, recipe: str | Path, overrides: Sequence[str] = (), *, every_row: bool, fixed: bool) -> None:
        quiet_libraries()
        plugins = load_plugins()
        resolved: Any = load_recipe(recipe, list(overrides), plugins)
        if fixed:
            never_end()
        self.recipe = resolved.recipe
        builder, reporter = Builder(resolved, plugins), SilentReporter()
        setup = _RlSetup(resolved, plugins, builder, reporter)
        self.bundle = load_bundle(resolved)
        setup.check(self.bundle)
        self.backend = builder.build_backend(self.bundle)
        run: Any = SimpleNamespace(stop=StopSignals(), reporter=reporter)
        self.trainer: Any = setup.build_job(run, self.bundle, self.backend.__enter__())[0]
        if every_row:
            self.trainer._rewards = Alternating()
        self.groups: Sequence[ScoredGroup] = ()
        self.number = 0

    def step(self) -> tuple[float, dict[str, float]]:
        """Take a step; seconds and metrics."""
        self.number += 1
        started = time.perf_counter()
        outcome = self.trainer.step(self.number)
        seconds = time.perf_counter() - started
        self.groups = outcome.groups
        return seconds, {**outcome.record.metrics, **outcome.record.timing_s}

    def requests(self) -> list[RolloutRequest]:
        """The requests of the next step."""
        requests: list[RolloutRequest] = self.trainer._rounds._draw(self.trainer.position)[0]
        return requests

    def gflops(self) -> float:
        """The machine's speed right now."""
        return measure_flops(self.bundle.accelerator.device) / 1e9


class Alternating:
    """Every other completion is right, so that no row is without a gradient."""

    def score_all(self, groups: Sequence[RolloutGroup]) -> list[ScoredGroup]:
        return [
            ScoredGroup(
                group=g,
                rewards=tuple(RewardOutput(total=float((i + j) % 2), components={}) for j in range(len(g.completions))),
            )
            for i, g in enumerate(groups)
        ]


def never_end() -> None:
    """From now on backends of this process know no token that ends a completion."""
    from reasonrl_hf import backend

    assert hasattr(backend, "eos_token_ids")
    backend.eos_token_ids = lambda model, tokenizer: (-1,)


def open_subject(subject: Subject) -> Bench:
    """The trainer of a subject."""
    model = f"path: {Path(subject.model).resolve()}" if subject.is_folder else f"name: {subject.model}"
    fields = {**subject.to_json(), "model": model, "template": "chat" if subject.is_folder else "compact"}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "benchmark.yaml"
        path.write_text(RECIPE.format(**fields), encoding="utf-8")
        return Bench(path, subject.overrides, every_row=subject.every_row, fixed=subject.fixed)


def use_threads(threads: int | None) -> int:
    """Set torch's threads if a number is given; the number in use."""
    if threads is not None:
        torch.set_num_threads(threads)
    return torch.get_num_threads()


def figures(bench: Bench, seconds: float, metrics: dict[str, float]) -> dict[str, Any]:
    """What a comparison needs of a step."""
    completions = [c for g in bench.groups for c in g.group.completions]
    return {
        "seconds": seconds,
        "rows": len(completions),
        "trained_rows": round(len(completions) * (1 - metrics["batch/dropped_frac"])),
        "tokens": sum(len(c.token_ids) for c in completions),
        "prompt_tokens": sum(len(g.group.request.prompt_ids) * len(g.group.completions) for g in bench.groups),
        "metrics": metrics,
    }


__all__ = ["Bench", "Subject", "figures", "from_json", "never_end", "open_subject", "use_threads"]

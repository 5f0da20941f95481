"""Time and money of a recipe, as a range between two sets of assumptions. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from reasonrl.contracts.memory import BackendMemory
from reasonrl.planning.gpus import Gpu
from reasonrl.planning.workload import Workload
from reasonrl.recipe.resolved import AnyResolved, ResolvedRecipe

if TYPE_CHECKING:
    from reasonrl.planning.dry_run import DryRunResult

OPTIMIZER_BYTES = 28
"""Read and written per trained parameter and optimizer step: weight, gradient and two moments."""


@dataclass(frozen=True, slots=True)
class Assumptions:
    """``length``: mean completion over its limit. ``utilization``: of the peak FLOPS in training.

    ``bandwidth``: share of the memory bandwidth that decoding reaches. ``launch_s``: least time per layer and token.
    """

    length: float
    utilization: float
    bandwidth: float
    launch_s: float
    host_gb_per_s: float
    """Between the GPU and the host."""

    def __str__(self) -> str:
        return (
            f"completions at {self.length:.0%} of their limit, training at {self.utilization:.0%} of peak FLOPS, "
            f"decoding at {self.bandwidth:.0%} of memory bandwidth"
        )


FAST = Assumptions(0.5, 0.45, 0.8, 0.00003, 24)
SLOW = Assumptions(1.0, 0.20, 0.4, 0.00006, 10)
EAGER = 10
"""How many times longer a layer takes to launch in the trainer's own model, without CUDA graphs."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Duration:
    """Of a run on several GPUs under one set of assumptions. ``tokens`` and ``flops``: of a step, on all GPUs."""

    assumed: Assumptions
    sampled_tokens: float
    trained_tokens: float
    flops: float
    sampling_s: float
    training_s: float
    evaluations_s: float
    """Of the run."""
    steps: int

    @property
    def step_s(self) -> float:
        """Sampling and training."""
        return self.sampling_s + self.training_s

    @property
    def hours(self) -> float:
        """The run, evaluations included."""
        return (self.steps * self.step_s + self.evaluations_s) / 3600


@dataclass(frozen=True, kw_only=True, slots=True)
class Clock:
    """Everything that durations are computed from, for one process of ``gpus``."""

    resolved: AnyResolved
    config: Any
    gpu: Gpu
    precision: str
    gpus: int
    steps: int
    workload: Workload
    counted: DryRunResult
    backend: BackendMemory | None

    def measure(self, assumed: Assumptions) -> Duration:
        """How long it takes if ``assumed`` holds."""
        work, seen = self.workload, self.counted.stages
        tokens = work.rows_per_step * (work.prompt + assumed.length * work.completion)
        per_token = 1.0 / (work.rows * work.length)
        epochs = self.resolved.recipe.trainer.update_epochs if isinstance(self.resolved, ResolvedRecipe) else 1
        flops = (
            tokens
            * per_token
            * sum(
                times * seen[stage].flops for stage, times in (("evaluation", 1), ("update", epochs)) if stage in seen
            )
        )
        compute_s = flops / (1e12 * self.gpu.tflops(self.precision) * assumed.utilization)
        moved = OPTIMIZER_BYTES * self.counted.trained * self._updates(epochs)
        is_rl = isinstance(self.resolved, ResolvedRecipe)
        return Duration(
            assumed=assumed,
            sampled_tokens=self.gpus * work.rows_per_step * assumed.length * work.completion if is_rl else 0.0,
            trained_tokens=self.gpus * tokens * epochs,
            flops=self.gpus * flops,
            sampling_s=self._decode_s(work.rows_per_step, assumed) if is_rl else 0.0,
            training_s=compute_s + moved / (1e9 * self.gpu.gb_per_s * assumed.bandwidth) + self._offload_s(assumed),
            evaluations_s=self._evaluations_s(assumed),
            steps=self.steps,
        )

    def _offload_s(self, assumed: Assumptions) -> float:
        """Each step moves what is offloaded to the host and back."""
        parts = getattr(getattr(self.resolved.recipe, "trainer", None), "offload", ())
        return 2 * sum(self.counted.resting.get(part, 0) for part in parts) / (1e9 * assumed.host_gb_per_s)

    def _updates(self, epochs: int) -> int:
        trainer = getattr(self.resolved.recipe, "trainer", None)
        return epochs * (trainer.minibatches if trainer else 1)

    def _evaluations_s(self, assumed: Assumptions) -> float:
        every = self.resolved.recipe.evaluation.every
        times = 2 + ((self.steps - 1) // every if every else 0)
        rows = sum(suite.config.problems * suite.config.samples for suite in self.resolved.suites.values())
        return times * self._decode_s(-(-rows // self.gpus), assumed)

    def _decode_s(self, rows: int, assumed: Assumptions) -> float:
        """Every token of a batch reads the weights and its rows' caches once."""
        if not rows or self.backend is None:
            return 0.0
        text = self.config.get_text_config()
        batch = min(rows, self.backend.parallel)
        tokens = -(-rows // self.backend.parallel) * assumed.length * self.workload.completion
        heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
        size = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
        cached = self.workload.prompt + assumed.length * self.workload.completion / 2
        cache = 2 * 2 * text.num_hidden_layers * heads * size * cached * batch
        moved = self._weights_read() + cache
        floor = text.num_hidden_layers * assumed.launch_s * (EAGER if self.backend.shares_model else 1)
        return float(tokens * max(moved / (1e9 * self.gpu.gb_per_s * assumed.bandwidth), floor))

    def _weights_read(self) -> float:
        """Bytes per decoding step: 2 a parameter; the trainer's model casts its float32 weights for every token."""
        seen, precision = self.counted, 2 if self.precision == "bfloat16" else 4
        if self.backend is None or not self.backend.shares_model or precision == 4:
            return precision * seen.model
        return 8.0 * seen.model_trained + 2.0 * (seen.model - seen.model_trained)

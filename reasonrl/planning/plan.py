"""Memory by part and stage, time and money of a recipe on a GPU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import torch

from reasonrl.errors import RecipeError
from reasonrl.planning.configs import find_config
from reasonrl.planning.dry_run import EVALUATION, OPTIMIZER, SAMPLING, STAGES, UPDATE, DryRunResult, dry_run
from reasonrl.planning.gpus import Gpu
from reasonrl.planning.sharding import Sharding, shard
from reasonrl.planning.timing import FAST, SLOW, Clock, Duration
from reasonrl.planning.workload import Workload, backend_memory, plan_workload
from reasonrl.recipe.schema import Recipe
from reasonrl.runs.identity import total_steps

if TYPE_CHECKING:
    from transformers import PretrainedConfig

    from reasonrl.plugins import Plugins
    from reasonrl.recipe.resolved import AnyResolved

GIB = 1 << 30
PARTS = (
    "weights",
    "critic",
    "reference",
    "gradients",
    "optimizer",
    "activations",
    "logits",
    "cast weights",
    "gathered layers",
    "DDP buckets",
    "KV cache",
    "engine",
)
CONTEXT_BYTES = GIB
"""CUDA's context and the workspaces of its libraries, per process."""
FRAGMENTATION = 0.05
"""Of the peak: what torch's allocator holds and cannot use."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where a recipe is to run. Without a GPU: a CPU with ``gib`` of memory."""

    gpu: Gpu | None
    gib: float
    count: int = 1
    sharding: Sharding = "none"

    @property
    def name(self) -> str:
        """For messages."""
        one = self.gpu.name if self.gpu else "this machine's CPU"
        how = ", FSDP" if self.sharding == "fsdp" else ", DDP"
        return f"{self.count} x {one}{how}" if self.count > 1 else one


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """Bytes of one process. ``stages``: stage -> part -> bytes at the stage's peak."""

    recipe: str
    model: str
    shape_from: str
    target: Target
    precision: str
    workload: Workload
    counted: DryRunResult
    stages: Mapping[str, Mapping[str, int]]
    engine_needs: int = 0
    """Bytes of an engine's own copy of the weights, and a tenth for its cache."""
    durations: Sequence[Duration] = ()
    """Under the fast and the slow assumptions; none where the speed of the device is unknown."""
    price: float | None = None
    """Of one GPU for an hour."""
    notes: Sequence[str] = ()

    @property
    def peak_stage(self) -> str:
        """The stage that needs most."""
        return max(self.stages, key=lambda name: sum(self.stages[name].values()))

    @property
    def peak(self) -> int:
        """Bytes of tensors and engine at the peak."""
        return sum(self.stages[self.peak_stage].values())

    @property
    def reserve(self) -> int:
        """Bytes beside them on a GPU."""
        return CONTEXT_BYTES + int(FRAGMENTATION * self.peak) if self.target.gpu else 0

    @property
    def is_engine_short(self) -> bool:
        """Whether the engine's share of the memory has no room for its own copy of the weights and some cache."""
        return self.stages.get(SAMPLING, {}).get("engine", self.engine_needs) < self.engine_needs

    @property
    def fits(self) -> bool:
        """Whether peak and reserve are at most the memory, and the engine's share holds its weights."""
        return not self.is_engine_short and self.peak + self.reserve <= self.target.gib * GIB

    @property
    def money(self) -> list[float]:
        """Fast and slow; empty without a price or a duration."""
        return [d.hours * self.price * self.target.count for d in self.durations] if self.price else []

    def to_json(self) -> dict[str, object]:
        """Plain data; memory in bytes."""
        gpu = self.target.gpu
        return {
            "recipe": self.recipe,
            "model": {"name": self.model, "shape_from": self.shape_from, "parameters": self.counted.model},
            "trained_parameters": self.counted.trained,
            "device": {
                "name": gpu.name if gpu else "cpu",
                "gib": self.target.gib,
                "count": self.target.count,
                "sharding": self.target.sharding if self.target.count > 1 else None,
                "precision": self.precision,
            },
            "workload": asdict(self.workload),
            "stages": {
                name: {"total": sum(parts.values()), "parts": dict(parts)} for name, parts in self.stages.items()
            },
            "engine_needs": self.engine_needs,
            "peak": {"stage": self.peak_stage, "bytes": self.peak, "reserve": self.reserve},
            "fits": self.fits,
            "time": [_duration(d) for d in self.durations],
            "money": self.money,
            "notes": list(self.notes),
        }


def _duration(duration: Duration) -> dict[str, object]:
    return {**asdict(duration), "step_s": duration.step_s, "hours": duration.hours}


def make_plan(resolved: AnyResolved, plugins: Plugins, target: Target, *, price: float | None = None) -> Plan:
    """Dry-run a step of the recipe for one process of ``target``.

    Raises:
        RecipeError: if the model's config is not known, or its step cannot be run without data.
    """
    config, shape_from = find_config(resolved)
    precision = plan_precision(resolved, target)
    workload = plan_workload(resolved, config, gpus=target.count)
    gpu_bytes = int(target.gib * GIB) if target.gpu else None
    try:
        counted = dry_run(resolved, plugins, config, workload, precision=precision, gpu_bytes=gpu_bytes)
    except (RuntimeError, TypeError, AttributeError, NotImplementedError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise RecipeError(f"cannot plan {resolved.path}: a step without data fails: {reason[:200]}") from error
    return Plan(
        recipe=resolved.recipe.name,
        model=str(resolved.recipe.model.name or resolved.model_path),
        shape_from=shape_from,
        target=target,
        precision=str(precision).removeprefix("torch."),
        workload=workload,
        counted=counted,
        stages=_stages(resolved, counted, target, precision),
        engine_needs=_engine_needs(resolved, counted, precision) if target.gpu else 0,
        durations=_durations(resolved, config, counted, workload, target, str(precision).removeprefix("torch.")),
        price=price,
        notes=list(_notes(resolved, target)),
    )


def plan_precision(resolved: AnyResolved, target: Target) -> torch.dtype:
    """What ``model.dtype`` is on the target."""
    name = resolved.recipe.model.dtype
    if name == "auto":
        name = "bfloat16" if target.gpu and target.gpu.has_bfloat16 else "float32"
    return torch.bfloat16 if name == "bfloat16" else torch.float32


def _stages(
    resolved: AnyResolved, counted: DryRunResult, target: Target, precision: torch.dtype
) -> dict[str, dict[str, int]]:
    shares_policy = getattr(resolved.rollout_backend.spec, "shares_policy", False)
    gathers = {SAMPLING: precision.itemsize * counted.model} if shares_policy else {}

    def on_device(stage: str, parts: Mapping[str, int]) -> dict[str, int]:
        count, sharding = target.count, target.sharding
        whole = shard(parts, counted, gpus=count, sharding=sharding, gathers=gathers.get(stage, 0))
        return _without_offloaded(stage, whole, resolved) if target.gpu else whole

    stages = {name: on_device(name, counted.stages[name].parts) for name in STAGES if name in counted.stages}
    engine = backend_memory(resolved)
    if engine is None or not target.gpu or not engine.sampling:
        return stages
    total = target.gib * GIB
    stages = {name: parts | {"engine": int(engine.training * total)} for name, parts in stages.items()}
    resting = on_device(SAMPLING, counted.resting)
    return {SAMPLING: resting | {"engine": int(engine.sampling * total)}} | stages


def _engine_needs(resolved: AnyResolved, counted: DryRunResult, precision: torch.dtype) -> int:
    engine = backend_memory(resolved)
    if engine is None or not engine.sampling:
        return 0
    return int(1.1 * precision.itemsize * counted.model / engine.shards)


def _without_offloaded(stage: str, parts: dict[str, int], resolved: AnyResolved) -> dict[str, int]:
    """``parts`` without what is in host memory during ``stage``."""
    offload = resolved.recipe.trainer.offload if isinstance(resolved.recipe, Recipe) else ()
    used = {"reference": (EVALUATION,), "optimizer": (UPDATE, OPTIMIZER)}
    return {part: size for part, size in parts.items() if part not in offload or stage in used[part]}


def _durations(
    resolved: AnyResolved,
    config: PretrainedConfig,
    counted: DryRunResult,
    workload: Workload,
    target: Target,
    precision: str,
) -> list[Duration]:
    if target.gpu is None or not target.gpu.tflops(precision):
        return []
    clock = Clock(
        resolved=resolved,
        config=config,
        gpu=target.gpu,
        precision=precision,
        gpus=target.count,
        steps=total_steps(resolved),
        workload=workload,
        counted=counted,
        backend=backend_memory(resolved),
    )
    return [clock.measure(assumed) for assumed in (FAST, SLOW)]


def _notes(resolved: AnyResolved, target: Target) -> list[str]:
    notes = []
    if backend_memory(resolved) is None:
        notes.append(
            f"the rollout backend {resolved.rollout_backend.name} does not say what memory it needs: not counted"
        )
    if resolved.recipe.model.dtype == "auto" and target.gpu and not target.gpu.has_bfloat16:
        notes.append(f"{target.gpu.name} has no bfloat16, so model.dtype auto is float32 there")
    return notes

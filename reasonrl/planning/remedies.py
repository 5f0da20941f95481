"""The smallest changes of a recipe that make it fit, found by planning it again with each."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from reasonrl.errors import RecipeError
from reasonrl.planning.plan import CONTEXT_BYTES, FRAGMENTATION, GIB
from reasonrl.planning.workload import backend_memory
from reasonrl.recipe.resolved import AnyResolved, ResolvedRecipe

if TYPE_CHECKING:
    from reasonrl.errors import RecipeError
from reasonrl.planning.plan import Plan

Planner = Callable[[tuple[str, ...]], tuple[AnyResolved, "Plan"]]
"""Loads the recipe with further overrides and plans it."""

CHECKPOINTING = "model.gradient_checkpointing=true"
SMALL_STATES = ("optimizer.name=adamw_bf16", "optimizer.name=adamw_8bit")
SHARED = "critic.kind=shared"
LORA = "model.lora.rank=16"
NF4 = "model.lora.quantization=nf4"
BATCH_ROWS, ENGINE_SHARE = "rollout_backend.max_batch_rows", "rollout_backend.gpu_memory_utilization"
OFFLOADS = ("trainer.offload=[reference,optimizer]", "trainer.offload=[optimizer]")
NEEDS_WHOLE = {SMALL_STATES[1], NF4, *OFFLOADS}
"""What FSDP cannot shard."""
MILD = (CHECKPOINTING, "trainer.", "sft.", "rollout_backend.")
"""What changes neither the optimizer nor what is trained."""
SMALLEST_BATCH = 8
"""Completions that the trainer's own model decodes together, at least."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Remedy:
    """Overrides with which a recipe fits."""

    overrides: tuple[str, ...]
    plan: Plan

    def price(self, before: Plan) -> float | None:
        """How many times longer a step takes, by the slow assumptions; None where that is unknown."""
        if not (self.plan.durations and before.durations):
            return None
        return self.plan.durations[-1].step_s / before.durations[-1].step_s


def find_remedies(resolved: AnyResolved, planner: Planner) -> Iterator[Remedy]:
    """The first that fits with all that the recipe trains; if that takes more than batches, the first with LoRA too."""
    target = planner(())[1].target
    is_sharded = target.count > 1 and target.sharding == "fsdp"
    for ladder in _ladders(resolved):
        rungs = (rung for rung in ladder if not (is_sharded and NEEDS_WHOLE & {*rung}))
        found = next((remedy for rung in rungs if (remedy := _fitted(rung, planner))), None)
        if found is not None:
            yield found
            if all(text.startswith(MILD) for text in found.overrides):
                return


def _fitted(overrides: tuple[str, ...], planner: Planner) -> Remedy | None:
    try:
        return _Rung(overrides, planner).fitted()
    except RecipeError:
        return None  # the recipe has something that does not go with these overrides


def _ladders(resolved: AnyResolved) -> Iterator[list[tuple[str, ...]]]:
    """Sets of overrides from the mildest on: of those that keep what is trained, and of those with adapters."""
    recipe = resolved.recipe
    recompute = () if recipe.model.gradient_checkpointing else (CHECKPOINTING,)
    shared = (SHARED,) if isinstance(resolved, ResolvedRecipe) and _is_separate(resolved) else ()
    if recipe.model.lora is not None:
        quantized = () if recipe.model.lora.quantization else (NF4,)
        yield _distinct((), recompute, (*recompute, *shared), (*recompute, *shared, *quantized))
        return
    small = SMALL_STATES if recipe.optimizer.name == "adamw" else ()
    moved = (*recompute, *_offload(resolved))
    states = [(*moved, name) for name in small]
    yield _distinct((), recompute, moved, *states, *((*rung, *shared) for rung in states))
    adapted = (*recompute, *shared, LORA)
    yield _distinct(adapted, (*adapted, NF4))


def _offload(resolved: AnyResolved) -> tuple[str, ...]:
    """Everything that can wait in the host's memory, unless some of it does already."""
    if not isinstance(resolved, ResolvedRecipe) or resolved.recipe.trainer.offload:
        return ()
    is_copy = resolved.needs.reference and resolved.recipe.model.lora is None
    return (OFFLOADS[0] if is_copy else OFFLOADS[1],)


def _is_separate(resolved: ResolvedRecipe) -> bool:
    return resolved.recipe.critic is not None and resolved.recipe.critic.kind == "separate"


def _distinct(*rungs: tuple[str, ...]) -> list[tuple[str, ...]]:
    return list(dict.fromkeys(rungs))


class _Rung:
    """A set of overrides, and with it the largest batches that fit."""

    def __init__(self, overrides: tuple[str, ...], planner: Planner) -> None:
        self._overrides, self._planner = overrides, planner
        self._resolved, self._large = planner(overrides)
        plan = self._large
        reserve = CONTEXT_BYTES if plan.target.gpu else 0
        self._limit = (plan.target.gib * GIB - reserve) / (1 + (FRAGMENTATION if plan.target.gpu else 0))

    def fitted(self) -> Remedy | None:
        """The rung as it is, or with smaller batches; None if nothing of it fits."""
        if self._large.fits:
            return Remedy(overrides=self._overrides, plan=self._large)
        smaller = dict(self._smaller())
        if not smaller or not (small := self._planned(smaller)).fits:
            return None
        between = {key: self._between(key, value, small) for key, value in smaller.items()}
        plan = self._planned(between)
        chosen, plan = (between, plan) if plan.fits else (smaller, small)
        return Remedy(overrides=(*self._overrides, *_texts(chosen)), plan=plan)

    def _planned(self, values: Mapping[str, float]) -> Plan:
        return self._planner((*self._overrides, *_texts(values)))[1]

    def _smaller(self) -> Iterator[tuple[str, float]]:
        """The keys that bound the stages which do not fit, at their smallest values."""
        over = {stage for stage, parts in self._large.stages.items() if sum(parts.values()) > self._limit}
        work, backend = self._large.workload, backend_memory(self._resolved)
        if over & {"evaluation", "update"} and work.rows > 1:
            yield self._budget_key, work.length
        if backend is not None and backend.sampling and ("sampling" in over or self._large.is_engine_short):
            yield ENGINE_SHARE, self._share()
        elif backend is not None and backend.shares_model and "sampling" in over and work.decoded_rows > SMALLEST_BATCH:
            yield BATCH_ROWS, SMALLEST_BATCH

    def _between(self, key: str, smallest: float, small: Plan) -> float:
        """The largest value of ``key`` that fits: memory grows linearly with the rows of a batch."""
        if key == ENGINE_SHARE:
            return smallest
        large, stages = self._large, ("sampling",) if key == BATCH_ROWS else ("evaluation", "update")
        most = large.workload.decoded_rows if key == BATCH_ROWS else large.workload.rows
        least = small.workload.decoded_rows if key == BATCH_ROWS else small.workload.rows
        rows = most
        for stage in stages:
            low, high = (sum(plan.stages.get(stage, {}).values()) for plan in (small, large))
            if high > self._limit:
                rows = min(rows, least + int((self._limit - low) / (high - low) * (most - least)))
        return rows if key == BATCH_ROWS else rows * large.workload.length

    def _share(self) -> float:
        """Of the GPU's memory, what is left for an engine, at most as much as before; but at least what it needs."""
        total = self._large.target.gib * GIB
        parts = self._large.stages["sampling"]
        left = (self._limit - sum(parts.values()) + parts.get("engine", 0)) / total
        had, needed = parts.get("engine", 0) / total, self._large.engine_needs / total
        return max(math.floor(100 * min(left, had)) / 100, math.ceil(100 * needed) / 100)

    @property
    def _budget_key(self) -> str:
        section = "trainer" if isinstance(self._resolved, ResolvedRecipe) else "sft"
        return f"{section}.max_tokens_per_microbatch"


def _texts(values: Mapping[str, float]) -> tuple[str, ...]:
    return tuple(f"{key}={value:g}" if value < 1 else f"{key}={int(value)}" for key, value in values.items())

"""The largest pieces that a step is cut into, on one process, from the recipe alone."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from reasonrl.contracts.memory import BackendMemory
from reasonrl.recipe.resolved import AnyResolved, ResolvedRecipe

if TYPE_CHECKING:
    from transformers import PretrainedConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class Workload:
    """All rows are at their limits: a prompt of ``prompt`` tokens, a completion of ``completion``."""

    rows: int
    """Completions of a micro-batch."""
    rows_per_step: int
    """Completions of a step, on this process."""
    prompt: int
    completion: int
    accumulates: bool
    """Whether an optimizer step has several micro-batches."""
    decoded_rows: int = 0
    """Completions that the trainer's own model decodes together; 0 if another engine samples."""
    distinct_prompts: int = 0
    """Prompts of ``decoded_rows``."""

    @property
    def length(self) -> int:
        """Tokens of a row."""
        return self.prompt + self.completion


def backend_memory(resolved: AnyResolved) -> BackendMemory | None:
    """What the recipe's rollout backend says it needs; None if it does not say."""
    ask = getattr(resolved.rollout_backend.config, "plan_memory", None)
    return None if ask is None else ask()


def plan_workload(resolved: AnyResolved, config: PretrainedConfig, *, gpus: int = 1) -> Workload:
    """The work of one of ``gpus`` processes."""
    sampling = resolved.recipe.sampling
    context = getattr(config.get_text_config(), "max_position_embeddings", None) or math.inf
    completion = int(min(sampling.max_completion_tokens, context - 1))
    prompt = int(min(sampling.max_prompt_tokens, context - completion))
    length = prompt + completion
    if isinstance(resolved, ResolvedRecipe):
        trainer = resolved.recipe.trainer
        per_step = max(1, trainer.prompts_per_step * sampling.group_size // gpus)
        per_update, budget = max(1, per_step // trainer.minibatches), trainer.max_tokens_per_microbatch
    else:
        sft = resolved.recipe.sft
        per_step = per_update = max(1, math.ceil(sft.tokens_per_batch / gpus / length))
        budget = sft.max_tokens_per_microbatch
    rows = min(per_update, max(1, budget // length))
    decoded, prompts = _decoded(resolved, per_step, gpus)
    return Workload(
        rows=rows,
        rows_per_step=per_step,
        prompt=prompt,
        completion=completion,
        accumulates=per_update > rows,
        decoded_rows=decoded,
        distinct_prompts=prompts,
    )


def _decoded(resolved: AnyResolved, per_step: int, gpus: int) -> tuple[int, int]:
    """Rows and prompts of the largest batch that the trainer's model decodes, of a step or an evaluation."""
    memory = backend_memory(resolved)
    if memory is None or not memory.shares_model:
        return 0, 0
    asked = [(s.config.problems * s.config.samples, s.config.samples) for s in resolved.suites.values()]
    asked = [(-(-rows // gpus), samples) for rows, samples in asked]
    if isinstance(resolved, ResolvedRecipe):
        asked.append((per_step, resolved.recipe.sampling.group_size))
    batches = [(_even_batch(rows, memory.parallel), samples) for rows, samples in asked]
    rows, samples = max(batches, default=(0, 1))
    return rows, -(-rows // samples)


def _even_batch(rows: int, at_most: int) -> int:
    """The rows of a batch, cut into as few batches as possible."""
    return math.ceil(rows / math.ceil(rows / at_most)) if rows else 0

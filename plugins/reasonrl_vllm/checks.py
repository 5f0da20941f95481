"""Checks that need no running engine."""

from __future__ import annotations

import torch

from reasonrl import RolloutContext
from reasonrl.contracts.models import base_model
from reasonrl.errors import RolloutError
from reasonrl_vllm.config import VLLMConfig
from reasonrl_vllm.failures import OTHER_BACKEND

SMALLEST_HEAD_ON_CPU = 32


def check_options(config: VLLMConfig, context: RolloutContext, processes: int) -> None:
    """Check options; ``processes``: the number of processes of the run.

    Raises:
        RolloutError: one line with the fix.
    """
    _check_length(config, context)
    _check_processes(config.tensor_parallel_size, processes)
    text = base_model(context.policy.model).config.get_text_config()
    _check_split(config.tensor_parallel_size, text)
    size = head_size(text)
    if size is not None and size < SMALLEST_HEAD_ON_CPU and torch.device(context.device).type == "cpu":
        raise RolloutError(
            f"vllm: the model's head size is {size}, vLLM's CPU build needs at least "
            f"{SMALLEST_HEAD_ON_CPU}; {OTHER_BACKEND}"
        )


def check_architecture(name: str) -> None:
    """Check that vLLM implements this architecture. Imports vLLM.

    For some it runs the classes of transformers, and rebuilds them for that: the trainer's model would be another one.

    Raises:
        RolloutError: for those, and for what it does not know.
    """
    from vllm import ModelRegistry

    known = ModelRegistry.models.get(name)
    if known is None:
        raise RolloutError(f"vllm: the architecture {name} is not supported; {OTHER_BACKEND}")
    if getattr(known, "class_name", "").startswith("Transformers"):
        raise RolloutError(
            f"vllm: it runs {name} through transformers and patches its classes; {OTHER_BACKEND}, or "
            "rollout_backend.mode to server"
        )


def check_modules(model: torch.nn.Module, *, on_gpu: bool) -> None:
    """Check vLLM's loaded ``model``.

    Raises:
        RolloutError: for experts on a CPU: they take no new weights.
    """
    from vllm.model_executor.layers.fused_moe.routed_experts import RoutedExperts

    if not on_gpu and any(isinstance(module, RoutedExperts) for module in model.modules()):
        raise RolloutError(f"vllm: its CPU build cannot update the weights of experts; {OTHER_BACKEND}")


def _check_length(config: VLLMConfig, context: RolloutContext) -> None:
    wanted = context.max_prompt_tokens + context.sampling.max_completion_tokens
    limit, holds = config.max_model_len, model_context(context)
    if limit is not None and holds is not None and limit > holds:
        raise RolloutError(
            f"vllm: rollout_backend.max_model_len is {limit}, the model's context is {holds}; lower or remove it"
        )
    if limit is not None and wanted > limit:
        raise RolloutError(
            f"vllm: sampling.max_prompt_tokens {context.max_prompt_tokens} and max_completion_tokens "
            f"{context.sampling.max_completion_tokens} need {wanted} tokens, "
            f"rollout_backend.max_model_len is {limit}; raise it"
        )


def _check_processes(spread: int, processes: int) -> None:
    """Neighboring processes share a copy of the model, so the group size must divide their number."""
    if processes % spread:
        plural = "process" if processes == 1 else "processes"
        more = -(-processes // spread) * spread
        raise RolloutError(
            f"vllm: rollout_backend.tensor_parallel_size is {spread}, the run has {processes} {plural}; "
            f"start it with accelerate launch --num_processes {more}"
        )


def _check_split(spread: int, text: object) -> None:
    """Check that the heads divide evenly; key-value heads fewer than processes are replicated."""
    heads = getattr(text, "num_attention_heads", None) or 0
    shared = getattr(text, "num_key_value_heads", None) or heads
    for number, kind in ((heads, "attention heads"), (shared, "key-value heads")):
        repeats = kind == "key-value heads" and number and spread % number == 0
        if number % spread and not repeats:
            raise RolloutError(
                f"vllm: rollout_backend.tensor_parallel_size is {spread}, which does not divide the "
                f"model's {number} {kind}; lower it"
            )


def head_size(text: object) -> int | None:
    """Return the attention head size, if the config has it."""
    heads, width = getattr(text, "num_attention_heads", None), getattr(text, "hidden_size", None)
    size: int | None = getattr(text, "head_dim", None)
    return size or (width // heads if heads and width else None)


def model_context(context: RolloutContext) -> int | None:
    """Return the model's context length in tokens; None if unknown."""
    text = base_model(context.policy.model).config.get_text_config()
    return getattr(text, "max_position_embeddings", None)

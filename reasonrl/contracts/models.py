"""Facts about a transformers model that trainer and rollout backends read alike. Imports no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def base_model(model: nn.Module) -> PreTrainedModel:
    """Return the transformers model inside peft's wrapper, or ``model`` itself."""
    wrapped: Any = model
    base: PreTrainedModel = wrapped.get_base_model() if hasattr(model, "get_base_model") else wrapped
    return base


def generation_eos_ids(model: nn.Module) -> list[int]:
    """Return the EOS ids of the generation config. Chat models end their turns with one the tokenizer may not name."""
    found = getattr(getattr(base_model(model), "generation_config", None), "eos_token_id", None)
    return [i for i in (found if isinstance(found, list | tuple) else [found]) if i is not None]


def eos_token_ids(model: nn.Module, tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """Return every id that ends a completion, sorted: the tokenizer's EOS and those of the generation config."""
    ids = {tokenizer.eos_token_id, *generation_eos_ids(model)}
    return tuple(sorted(i for i in ids if isinstance(i, int)))


def tied_names(model: nn.Module) -> dict[str, str]:
    """Map the second name of each tied weight to its first, such as output layer to embedding."""
    base = base_model(model)
    parameters = dict(base.named_parameters(remove_duplicate=False))
    tied: dict[str, str] = getattr(base, "all_tied_weights_keys", None) or {}
    return {a: b for a, b in tied.items() if a in parameters and parameters[a] is parameters.get(b)}

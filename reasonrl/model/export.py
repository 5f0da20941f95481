"""Export a trained policy: unwrap, gather, merge adapters, handle tied weights."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from reasonrl.contracts.models import base_model, tied_names
from reasonrl.errors import CheckpointError
from reasonrl.model.divided import gather
from reasonrl.model.lora import is_lora, iter_merged_weights, write_adapter
from reasonrl.model.policy import PolicyModule
from reasonrl.model.quiet import quiet_transformers
from reasonrl.rundir.layout import ADAPTER

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


_LAYER = re.compile(r".*?\.[0-9]+\.|")
"""The beginning of the names of one layer's weights; empty outside of layers."""


def unwrap(policy: nn.Module) -> PolicyModule:
    """Return the ``PolicyModule`` inside the wrappers of accelerate or torch.

    Raises:
        CheckpointError: If the wrapper is unsupported.
    """
    from accelerate.utils import extract_model_from_parallel

    module = extract_model_from_parallel(policy)
    if not isinstance(module, PolicyModule):
        found = type(module).__name__
        raise CheckpointError(
            f"export: expected a PolicyModule, plain, wrapped by DDP or sharded by FSDP2, got {found}"
        )
    return module


def iter_hf_weights(policy: nn.Module, dtype: torch.dtype | None = None) -> Iterator[tuple[str, Tensor]]:
    """Iterate over the policy's weights by their names in a model folder, without the critic.

    Adapters are merged into copies; the live weights do not change. A tied weight comes once, under the name that
    transformers saves. Tensors are detached, on their own device and whole: those of a sharded policy are gathered one
    by one, on every process, and every process must read to the end. Tensors may alias the live weights: read them
    before the next update.

    Args:
        dtype: what floating-point weights are cast to, before they are gathered.

    Raises:
        CheckpointError: If the policy is in an unsupported wrapper.
    """
    for name, tensor in iter_own_weights(policy):
        is_cast = dtype is not None and tensor.is_floating_point()
        yield name, gather(tensor.to(dtype) if is_cast else tensor)


def iter_own_weights(policy: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Iterate likewise, but over a sharded policy's weights as they are divided."""
    base = base_model(unwrap(policy).model)
    if _is_converted(base):
        yield from _iter_converted(base, _iter_weights(unwrap(policy).model))
    else:
        yield from _iter_weights(unwrap(policy).model)


def write_description(policy: nn.Module, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write what a model folder holds beside the weights: configs, the model's code and the tokenizer.

    ``AutoModelForCausalLM`` and ``AutoTokenizer`` load the folder once the weights are there.

    Raises:
        CheckpointError: If the folder cannot be written.
    """
    base = base_model(unwrap(policy).model)
    try:
        with quiet_transformers():
            base.save_pretrained(folder, state_dict={})  # no weights, and so no file of weights
            tokenizer.save_pretrained(folder)
    except Exception as error:  # tokenizers raises nothing narrower on a full disk
        raise CheckpointError(f"cannot write the model to {folder}: {error}") from error


def write_adapters(policy: nn.Module, folder: Path, read: Callable[[], Mapping[str, Tensor]]) -> None:
    """Write the adapters as a separate PEFT folder; nothing for a policy without adapters.

    Not into the model's folder: transformers would merge them a second time. ``read``: gives their tensors.
    """
    model = unwrap(policy).model
    if is_lora(model):
        write_adapter(model, read(), folder / ADAPTER)


def model_names(policy: nn.Module) -> list[str]:
    """Return the weight names that a model folder restores bit-exactly.

    Empty with adapters, which the folder has merged, or if the layout on disk differs.
    """
    model = unwrap(policy).model
    base = base_model(model)
    if is_lora(model) or _is_converted(base):
        return []
    aliases = tied_names(base)
    return [name for name in base.state_dict() if name not in aliases]


def _is_converted(base: PreTrainedModel) -> bool:
    from transformers.conversion_mapping import get_model_conversion_mapping

    return bool(getattr(base, "_weight_conversions", None) or get_model_conversion_mapping(base, add_legacy=False))


def _iter_converted(base: PreTrainedModel, weights: Iterable[tuple[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
    """Convert a layout in memory that differs from the one on disk, such as stacked experts, layer by layer."""
    from transformers.core_model_loading import revert_weight_conversion

    for _, layer in groupby(weights, key=lambda weight: _LAYER.match(weight[0])[0]):  # type: ignore[index]
        whole = {name: gather(tensor) for name, tensor in layer}
        yield from revert_weight_conversion(base, whole).items()


def _iter_weights(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    base = base_model(model)
    aliases = tied_names(base)
    for name, tensor in iter_merged_weights(model):
        if name not in aliases:
            yield name, tensor.detach()

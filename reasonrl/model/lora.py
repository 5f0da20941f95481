"""LoRA through peft, an optional dependency (extra ``lora``)."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeGuard, cast

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from reasonrl.contracts.install import install_extra
from reasonrl.contracts.models import base_model
from reasonrl.errors import RecipeError
from reasonrl.model.quantize import dequantize, is_quantized

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

    from reasonrl.recipe.schema import LoraConfig


ADAPTER_FILE = "adapter_model.safetensors"


def apply_lora(
    model: nn.Module, config: LoraConfig, *, base: str | None = None, revision: str | None = None
) -> nn.Module:
    """Freeze ``model`` and add trainable adapters.

    ``target_modules: [all-linear]`` selects every linear layer except the head. The adapters' B matrices start at
    zero, so the wrapped model computes the same as ``model``. ``base``, ``revision``: origin of ``model``.

    Raises:
        RecipeError: if peft is missing or no module matches.
    """
    peft = _peft("model.lora")
    targets = list(config.target_modules)
    settings = peft.LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,
        lora_dropout=config.dropout,
        target_modules="all-linear" if targets == ["all-linear"] else targets,
        task_type="CAUSAL_LM",
    )
    try:
        with warnings.catch_warnings():
            # peft warns about weights stored transposed (GPT-2), which it then handles.
            warnings.filterwarnings("ignore", message="fan_in_fan_out")
            warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing")  # peft asks transformers
            adapted = peft.get_peft_model(model, settings)
    except ValueError as error:
        reason = str(error).splitlines()[0]
        raise RecipeError(f"model.lora.target_modules: {targets} do not match this model: {reason}") from error
    if base is not None:
        # Absolute, so that the folder is found from anywhere.
        found = str(Path(base).resolve()) if Path(base).is_dir() else base
        settings.base_model_name_or_path, settings.revision = found, revision
    return adapted


def merge_adapter(model: nn.Module, folder: Path) -> PreTrainedModel:
    """Merge the PEFT adapter of ``folder`` into ``model`` and make all weights trainable.

    Raises:
        RecipeError: If peft is missing. Errors of peft pass through.
    """
    peft = _peft(f"adapter {folder}")
    merged = peft.PeftModel.from_pretrained(model, str(folder)).merge_and_unload()
    return merged.requires_grad_(True)  # peft froze the adapted weights


def write_adapter(model: Any, tensors: Mapping[str, Tensor], folder: Path) -> None:
    """Write the adapters of ``model`` so that ``peft.PeftModel.from_pretrained`` loads them onto its base.

    Args:
        tensors: Gathered trained parameters of ``model``, by name.
    """
    peft = _peft("model.lora")
    (name,) = model.peft_config
    config = copy.copy(model.peft_config[name])
    config.inference_mode, config.target_modules = True, sorted(config.target_modules)
    folder.mkdir()
    config.save_pretrained(str(folder))
    found = peft.get_peft_model_state_dict(
        model, state_dict=dict(tensors), adapter_name=name, save_embedding_layers=False
    )
    save_file({key: value.contiguous() for key, value in found.items()}, folder / ADAPTER_FILE)


def _peft(wanted_by: str) -> ModuleType:
    try:
        import peft
    except ImportError as error:
        raise RecipeError(f"{wanted_by} needs the package peft: {install_extra('lora')}") from error
    return peft


def is_lora(model: nn.Module) -> TypeGuard[PeftModel]:
    """Whether ``model`` came from :func:`apply_lora`."""
    return hasattr(model, "peft_config") and hasattr(model, "get_base_model")


def embeddings(model: nn.Module) -> Tensor:
    """Return the weights of the input embeddings, a row per token."""
    return cast("Tensor", base_model(model).get_input_embeddings().weight)


def iter_merged_weights(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Iterate over ``base_model(model).state_dict()`` with the adapters merged, one tensor at a time.

    The live weights do not change; a tensor without an adapter is the live one. Quantized weights are dequantized.
    """
    base = base_model(model)
    quantized = {f"{name}.weight": module for name, module in base.named_modules() if is_quantized(module)}
    adapted = {
        f"{name}.weight": module
        for name, module in base.named_modules()
        if hasattr(module, "get_delta_weight") and hasattr(module, "active_adapters")
    }
    for name, tensor in base.state_dict().items():
        if ".lora_" in name or f"{name.rpartition('.weight.')[0]}.weight" in quantized:
            continue  # the latter are scales
        if name in quantized:
            tensor = dequantize(quantized[name])
        plain = name.replace(".base_layer.", ".")
        layer = adapted.get(plain)
        yield plain, tensor if layer is None else _merge(layer, tensor)


@torch.no_grad()
def _merge(layer: Any, weight: Tensor) -> Tensor:
    # In float32: in bf16 a small delta would be lost against a large weight.
    total = weight.float()
    for adapter in layer.active_adapters:
        total = total + layer.get_delta_weight(adapter).float()
    return total

"""Linear layers in 4 bits (NF4, arXiv:2305.14314) through bitsandbytes, an optional dependency.

Its extra is ``low-memory``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from reasonrl.errors import RecipeError

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def quantize(network: PreTrainedModel, dtype: torch.dtype) -> None:
    """Quantize the linear layers of ``network`` but for its head, one at a time; they multiply in ``dtype``.

    Raises:
        RecipeError: If it has none.
    """
    head = network.get_output_embeddings()
    found = [
        (parent, name, layer)
        for parent in network.modules()
        for name, layer in parent.named_children()
        if type(layer) is nn.Linear and layer is not head
    ]
    if not found:
        raise RecipeError(
            f"model.lora.quantization: {type(network).__name__} has no linear layers that bitsandbytes can quantize; "
            "set it to null"
        )
    for parent, name, layer in found:
        setattr(parent, name, _quantized(layer, dtype))
    marked: Any = network
    marked.is_loaded_in_4bit = True  # where peft looks


def _quantized(layer: nn.Linear, dtype: torch.dtype) -> nn.Module:
    from bitsandbytes.nn import Linear4bit, Params4bit

    shape = layer.in_features, layer.out_features
    low: Any = Linear4bit(*shape, bias=False, compute_dtype=dtype, quant_type="nf4", device="meta")
    weight = Params4bit(layer.weight.detach(), requires_grad=False, quant_type="nf4", module=low)
    low.weight, low.bias = weight.to(layer.weight.device), layer.bias
    # On a CPU with bf16 instructions it would repack itself when it samples, and then give no gradients.
    low.support_avx512bf16_for_cpu = False
    return low.requires_grad_(False)


def is_quantized(module: nn.Module) -> bool:
    """Whether ``module`` holds its weight in 4 bits."""
    return getattr(getattr(module, "weight", None), "quant_state", None) is not None


def dequantize(module: Any) -> Tensor:
    """Return the weight that a quantized ``module`` multiplies by, in float32."""
    from bitsandbytes.functional import dequantize_4bit

    return dequantize_4bit(module.weight.data, module.weight.quant_state).float()

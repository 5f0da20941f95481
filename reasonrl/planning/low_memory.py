"""Stand-ins for what bitsandbytes computes: the same tensors, without the package, which a plan must not need."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

if TYPE_CHECKING:
    from transformers import PreTrainedModel

BLOCK, NESTED = 64, 256
"""Weights per scale of NF4, which is 8 bits wide; scales per scale of scales, in float32."""
STATE_BLOCK, SMALLEST = 256, 4096
"""Values per scale of an 8-bit moment; smaller tensors keep float32."""


class Nf4Linear(nn.Linear):
    """A frozen linear layer in 4 bits: it is dequantized for each product, and again in the backward pass."""

    def __init__(self, layer: nn.Linear, dtype: torch.dtype) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features, self.compute_dtype = layer.in_features, layer.out_features, dtype
        count = layer.weight.numel()
        packed = torch.zeros(count // 2, 1, dtype=torch.float32).to(torch.uint8)
        self.weight = nn.Parameter(packed, requires_grad=False)
        marked: Any = self.weight
        marked.quant_state = (self.out_features, self.in_features)
        self.bias = layer.bias
        scales = -(-count // BLOCK)
        self.register_buffer("scales", torch.zeros(scales, dtype=torch.float32).to(torch.uint8), persistent=False)
        self.register_buffer("scales_of_scales", torch.zeros(-(-scales // NESTED)), persistent=False)
        self.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        """Multiply in the compute type."""
        bias = None if self.bias is None else self.bias.to(self.compute_dtype)
        shape = (self.out_features, self.in_features)
        return _Nf4Product.apply(x.to(self.compute_dtype), self.weight, bias, shape).to(x.dtype)


class _Nf4Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, shape: tuple[int, int]) -> Tensor:
        ctx.save_for_backward(weight)
        ctx.shape = shape
        return nn.functional.linear(x, _dequantized(weight, shape, x.dtype), bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        (weight,) = ctx.saved_tensors
        return grad @ _dequantized(weight, ctx.shape, grad.dtype), None, None, None


def _dequantized(weight: Tensor, shape: tuple[int, int], dtype: torch.dtype) -> Tensor:
    return weight.new_zeros(shape, dtype=dtype)


def quantize(network: PreTrainedModel, dtype: torch.dtype) -> None:
    """Put stand-ins in place of the linear layers that ``model.quantize.quantize`` quantizes."""
    head = network.get_output_embeddings()
    for parent in list(network.modules()):
        for name, layer in list(parent.named_children()):
            if type(layer) is nn.Linear and layer is not head:
                setattr(parent, name, Nf4Linear(layer, dtype))


def dequantize(module: Nf4Linear) -> Tensor:
    """A weight in float32."""
    return _dequantized(module.weight, (module.out_features, module.in_features), torch.float32)


class Adam8bit(Optimizer):
    """Has the states of bitsandbytes' AdamW8bit, and updates in place."""

    def __init__(self, params: Iterable[Any], **options: Any) -> None:
        super().__init__(params, options)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Make the states in the first step."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None and not self.state[parameter]:
                    self.state[parameter] = _moments(parameter)


def _moments(parameter: Tensor) -> dict[str, Tensor]:
    if parameter.numel() < SMALLEST:
        return {name: torch.zeros_like(parameter) for name in ("state1", "state2")}
    codes = {name: torch.zeros_like(parameter, dtype=torch.uint8) for name in ("state1", "state2")}
    blocks = -(-parameter.numel() // STATE_BLOCK)
    return codes | {name: parameter.new_zeros(blocks) for name in ("absmax1", "absmax2")}

"""Store frozen weights in the precision in which autocast multiplies them.

Autocast casts the matrices of linear layers for every product, so storing them cast changes no result. Everything else
(norms, embeddings, also those tied to the head) enters sums in float32 and stays in float32.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator

import torch
from torch import nn


def store_frozen(model: nn.Module, dtype: torch.dtype) -> None:
    """Convert the linear layers of ``model`` that are not trained, one at a time."""
    for parameter in _castable(model):
        if not parameter.requires_grad:
            parameter.data = parameter.data.to(dtype)


def copy_frozen(model: nn.Module, dtype: torch.dtype) -> nn.Module:
    """Copy ``model`` without gradients, its linear layers in ``dtype``; a whole copy in float32 never exists."""
    cast = {
        id(parameter): nn.Parameter(parameter.detach().to(dtype), requires_grad=False)
        for parameter in _castable(model)
        if parameter.dtype != dtype
    }
    return copy.deepcopy(model, cast).requires_grad_(False)


def _castable(model: nn.Module) -> Iterator[nn.Parameter]:
    from transformers.pytorch_utils import Conv1D

    modules = list(model.modules())
    looked_up = {id(module.weight) for module in modules if isinstance(module, nn.Embedding)}
    for module in modules:
        if type(module) in (nn.Linear, Conv1D):  # a subclass may compute without autocast
            yield from (p for p in module.parameters(recurse=False) if id(p) not in looked_up)

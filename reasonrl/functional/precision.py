"""The floating-point precision of devices and caches."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

GROWING_LAYERS = ("DynamicLayer", "DynamicSlidingWindowLayer")
"""Classes of transformers that concatenate keys and values."""


def widest_float(device: torch.device) -> torch.dtype:
    """Return float64 if ``device`` supports it, else float32 (Apple's GPUs do not)."""
    try:
        torch.empty((), dtype=torch.float64, device=device)
    except (TypeError, RuntimeError):
        return torch.float32
    return torch.float64


def narrow_cache(cache: Any, dtype: torch.dtype) -> None:
    """Keep the keys and values of a filled key/value cache of transformers in ``dtype``, that of autocast.

    Rotary embeddings are float32 and widen them; attention would cast the whole cache back for every token.
    """
    for layer in getattr(cache, "layers", ()):
        if type(layer).__name__ in GROWING_LAYERS and layer.is_initialized:
            layer.keys, layer.values = layer.keys.to(dtype), layer.values.to(dtype)
            layer.update = partial(_update, layer.update, dtype)


def _update(
    update: Callable[..., Any], dtype: torch.dtype, keys: Tensor, values: Tensor, *more: Any, **named: Any
) -> Any:
    return update(keys.to(dtype), values.to(dtype), *more, **named)

"""Sampling with the trainer's own model, as the backend ``hf`` does: a prefill, then one token with a full cache."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from reasonrl.contracts.models import base_model
from reasonrl.functional.precision import narrow_cache
from reasonrl.planning.meter import CACHE

if TYPE_CHECKING:
    from reasonrl.model.policy import PolicyModule
    from reasonrl.planning.alone import Alone
    from reasonrl.planning.meter import Meter
    from reasonrl.planning.workload import Workload


@torch.no_grad()
def dry_run_decoding(meter: Meter, policy: PolicyModule, alone: Alone, work: Workload) -> None:
    """Meter the stage of sampling."""
    from transformers import Cache

    network: Any = base_model(policy.model)
    kept = {"logits_to_keep": 1} if policy.path.keeps_logits else {}
    prompts = torch.zeros(work.distinct_prompts, work.prompt, dtype=torch.int64)
    newest = torch.zeros(work.decoded_rows, 1, dtype=torch.int64)
    expand = torch.arange(work.decoded_rows) % work.distinct_prompts
    with meter.stage("sampling"), alone.autocast():
        output = network(input_ids=prompts, use_cache=True, **kept)
        # The argument's name changes between releases of transformers; it is that of the output.
        found: Any = next((name, value) for name, value in output.items() if isinstance(value, Cache))
        argument, cache = found
        del output
        if torch.is_autocast_enabled("cpu"):
            narrow_cache(cache, alone.precision)
        cache.reorder_cache(expand)
        meter.tag(CACHE, (x for layer in cache.layers for x in (layer.keys, layer.values)))
        for layer in cache.layers:
            heads, size = layer.keys.shape[1], layer.keys.shape[3]
            shape = (work.decoded_rows, heads, work.length - 1, size)
            dtype = alone.precision
            layer.keys = layer.values = None
            layer.update = partial(_narrow, layer.update, dtype)
            layer.keys, layer.values = torch.zeros(shape, dtype=dtype), torch.zeros(shape, dtype=dtype)
            meter.tag(CACHE, (layer.keys, layer.values))
        positions = newest + work.length - 1
        logits = network(input_ids=newest, use_cache=True, position_ids=positions, **kept, **{argument: cache}).logits[
            :, -1
        ]
        _sample(logits)
        for layer in cache.layers:  # which refers to itself, so that only the garbage collector would free these
            layer.keys = layer.values = None


def _narrow(
    update: Callable[..., Any], dtype: torch.dtype, keys: Tensor, values: Tensor, *more: Any, **named: Any
) -> Any:
    """As the backend keeps keys and values, in the precision of autocast."""
    return update(keys.to(dtype), values.to(dtype), *more, **named)


def _sample(logits: torch.Tensor) -> None:
    """Softmax and its cumulative sum in double precision."""
    probabilities = torch.softmax(logits.float(), dim=-1)
    torch.cumsum(probabilities, dim=-1, dtype=torch.float64)

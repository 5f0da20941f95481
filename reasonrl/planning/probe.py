"""Which path the logits of a model without data take: by identity of tensors, where a real one compares numbers."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from reasonrl.model.heads import LogitsPath

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@torch.no_grad()
def find_path(model: PreTrainedModel) -> LogitsPath:
    """Like ``probe_logits_path``, which needs numbers."""
    keeps_logits = "logits_to_keep" in inspect.signature(model.forward).parameters
    head = model.get_output_embeddings()
    if head is None or model.base_model is model:
        return LogitsPath(plain_head=False, keeps_logits=keeps_logits)
    seen: list[tuple[Tensor, Tensor]] = []
    hidden: list[Tensor] = []
    hooks = [
        head.register_forward_hook(lambda _, args, out: seen.append((args[0], out))),
        model.base_model.register_forward_hook(lambda _, args, out: hidden.append(out.last_hidden_state)),
    ]
    try:
        logits = model(input_ids=torch.arange(3)[None], use_cache=False).logits
    finally:
        for hook in hooks:
            hook.remove()
    plain = len(seen) == 1 and _same(seen[0][1], logits) and _same(seen[0][0], hidden[0])
    return LogitsPath(plain_head=plain, keeps_logits=keeps_logits)


def _same(one: Any, other: Any) -> bool:
    return bool(one.untyped_storage()._cdata == other.untyped_storage()._cdata)

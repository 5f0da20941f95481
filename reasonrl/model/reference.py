"""The reference model of KL terms: the initial policy, frozen."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from reasonrl.model.frozen import copy_frozen
from reasonrl.model.lora import is_lora
from reasonrl.model.mode import in_mode
from reasonrl.model.policy import ForwardOutput, PolicyModule

Reference = Callable[..., ForwardOutput]
"""``PolicyModule.forward`` of the initial policy, for log-probabilities only."""


def build_reference(
    policy: PolicyModule, entry: nn.Module | None = None, dtype: torch.dtype = torch.float32
) -> Reference:
    """Build the reference of ``policy``; call this before the first update.

    With LoRA it is the policy with the adapters disabled, called through ``entry`` (the DDP or FSDP wrapper; default:
    the policy itself). Otherwise it is a frozen copy on the same device, to be called under the autocast of ``dtype``
    as the policy is.
    """
    model = policy.model
    called: nn.Module
    disabled: Callable[[], AbstractContextManager[object]] = nullcontext
    if is_lora(model):
        frozen, called, disabled = policy, policy if entry is None else entry, model.disable_adapter
    else:
        frozen = called = PolicyModule(copy_frozen(model, dtype), path=policy.path).eval()

    @torch.no_grad()
    def forward(
        input_ids: Tensor, attention_mask: Tensor, response_mask: Tensor, *, temperature: float = 1.0
    ) -> ForwardOutput:
        with in_mode(frozen, training=False), disabled():
            return called(input_ids, attention_mask, response_mask, temperature=temperature)

    return forward

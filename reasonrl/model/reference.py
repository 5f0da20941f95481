"""The reference model of KL terms: the initial policy, frozen."""

from __future__ import annotations

import copy
from typing import Any, cast

import torch
from torch import Tensor, nn

from reasonrl.model.lora import is_lora
from reasonrl.model.mode import in_mode
from reasonrl.model.policy import ForwardOutput, PolicyModule


class FrozenReference:
    """A frozen copy of the initial policy."""

    def __init__(self, policy: PolicyModule) -> None:
        frozen = PolicyModule(copy.deepcopy(policy.model))
        self._policy = frozen.requires_grad_(False).eval()

    @torch.no_grad()
    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, response_mask: Tensor, *, temperature: float = 1.0
    ) -> ForwardOutput:
        """Run ``PolicyModule.forward`` for log-probabilities only."""
        return self._policy(input_ids, attention_mask, response_mask, temperature=temperature)


class AdapterOffReference:
    """The policy with its adapters disabled, without a second copy. ``entry``: the module the trainer calls."""

    def __init__(self, policy: PolicyModule, entry: nn.Module | None = None) -> None:
        self._policy = policy
        self._entry = policy if entry is None else entry

    @torch.no_grad()
    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, response_mask: Tensor, *, temperature: float = 1.0
    ) -> ForwardOutput:
        """Run ``PolicyModule.forward`` for log-probabilities only."""
        model = cast(Any, self._policy.model)
        with in_mode(self._policy, training=False), model.disable_adapter():
            return self._entry(input_ids, attention_mask, response_mask, temperature=temperature)


Reference = FrozenReference | AdapterOffReference


def build_reference(policy: PolicyModule, entry: nn.Module | None = None) -> Reference:
    """Build the reference of ``policy``; call this before the first update.

    With LoRA it is the policy with the adapters disabled, called through ``entry`` (the DDP or FSDP wrapper; default:
    the policy itself). Otherwise it is a frozen copy on the same device.
    """
    return AdapterOffReference(policy, entry) if is_lora(policy.model) else FrozenReference(policy)

"""The frozen starting model, which KL terms compare with."""

from __future__ import annotations

import copy
from typing import Any, cast

import torch
from torch import Tensor, nn

from reasonrl.model.lora import is_lora
from reasonrl.model.mode import in_mode
from reasonrl.model.policy import ForwardOutput, PolicyModule


class FrozenReference:
    """A copy of the policy as it was."""

    def __init__(self, policy: PolicyModule) -> None:
        frozen = PolicyModule(copy.deepcopy(policy.model))
        self._policy = frozen.requires_grad_(False).eval()

    @torch.no_grad()
    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, response_mask: Tensor, *, temperature: float = 1.0
    ) -> ForwardOutput:
        """As ``PolicyModule.forward``, log-probabilities only."""
        return self._policy(input_ids, attention_mask, response_mask, temperature=temperature)


class AdapterOffReference:
    """The policy itself with its adapters off: no second copy of the weights. ``entry`` is what the trainer
    calls."""

    def __init__(self, policy: PolicyModule, entry: nn.Module | None = None) -> None:
        self._policy = policy
        self._entry = policy if entry is None else entry

    @torch.no_grad()
    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, response_mask: Tensor, *, temperature: float = 1.0
    ) -> ForwardOutput:
        """As ``PolicyModule.forward``, log-probabilities only."""
        model = cast(Any, self._policy.model)
        with in_mode(self._policy, training=False), model.disable_adapter():
            return self._entry(input_ids, attention_mask, response_mask, temperature=temperature)


Reference = FrozenReference | AdapterOffReference


def build_reference(policy: PolicyModule, entry: nn.Module | None = None) -> Reference:
    """The reference of ``policy``; call it before the first update.

    With LoRA it is the same weights with the adapters off; ``entry`` is then the wrapped module (DDP, FSDP)
    to go through, by default the policy itself. Otherwise it is a frozen copy on the same device.
    """
    return AdapterOffReference(policy, entry) if is_lora(policy.model) else FrozenReference(policy)

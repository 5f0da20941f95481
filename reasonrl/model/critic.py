"""The critic: a scalar head on the policy's trunk, or on one of its own, which may share the frozen weights."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from reasonrl.contracts.models import base_model
from reasonrl.model.lora import is_lora

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class Critic(nn.Module):
    """Predicts values from hidden states ``[N, D]``; ``decoder`` is None if the policy's trunk is shared."""

    def __init__(
        self, hidden_size: int, decoder: nn.Module | None = None, *, device: torch.device | None = None
    ) -> None:
        super().__init__()
        self.decoder = decoder
        self.head = nn.Linear(hidden_size, 1, device=device)
        # Zero: initial values are 0, so the first advantages equal the returns.
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, hidden: Tensor) -> Tensor:
        """Compute values ``[N]`` in float32, also under autocast: returns need more than 8 bits of mantissa."""
        with torch.autocast(hidden.device.type, enabled=False):
            return self.head(hidden.to(self.head.weight.dtype)).squeeze(-1)


def build_critic(kind: Literal["shared", "separate", "adapter"], model: nn.Module) -> Critic:
    """Build a critic for the causal LM ``model``, on its device.

    ``shared`` reads the policy's last hidden state and sends gradients into it; ``separate`` starts as a
    copy of the policy's trunk, as in TinyZero, without adapters and trained in full; ``adapter`` has a trunk with
    adapters of its own on the frozen weights of the policy's. Both recompute activations where ``model`` does.
    """
    base = base_model(model)
    decoder: nn.Module | None = None
    if kind != "shared":
        decoder = _trainable_copy(model) if kind == "separate" else _adapter_copy(base.base_model)
    return Critic(base.config.get_text_config().hidden_size, decoder, device=base.device)


def enable_gradient_checkpointing(model: PreTrainedModel) -> None:
    """Enable non-reentrant gradient checkpointing, which works under DDP and with frozen inputs."""
    # The new name in transformers; the old one warns there.
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable({"use_reentrant": False})


def _trainable_copy(model: nn.Module) -> nn.Module:
    copied = copy.deepcopy(model)
    base: PreTrainedModel = copied.unload() if is_lora(copied) else base_model(copied)
    # Frozen weights may be stored in less than the float32 that updates need.
    return base.base_model.float().requires_grad_(True)


def _adapter_copy(trunk: nn.Module) -> nn.Module:
    """Copy the modules of ``trunk`` and its adapters; frozen weights are the same tensors in both."""
    shared: dict[int, object] = {id(p): p for p in trunk.parameters() if not p.requires_grad}
    scales = (getattr(module, "quant_state", None) for module in trunk.modules())
    shared |= {id(state): state for state in scales if state is not None}  # of 4-bit weights
    return copy.deepcopy(trunk, shared)

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


class Reference:
    """``PolicyModule.forward`` of the initial policy, for log-probabilities only.

    ``weights``: those that it alone has; None with LoRA, where they are the policy's.
    """

    def __init__(
        self,
        frozen: nn.Module,
        *,
        called: nn.Module | None = None,
        disabled: Callable[[], AbstractContextManager[object]] | None = None,
    ) -> None:
        self.weights = frozen if called is None else None
        self._frozen, self._called, self._disabled = frozen, called or frozen, disabled or nullcontext

    @torch.no_grad()
    def __call__(
        self, input_ids: Tensor, attention_mask: Tensor, response_mask: Tensor, *, temperature: float = 1.0
    ) -> ForwardOutput:
        """Compute log-probabilities under the initial policy."""
        with in_mode(self._frozen, training=False), self._disabled():
            return self._called(input_ids, attention_mask, response_mask, temperature=temperature)


def build_reference(
    policy: PolicyModule, entry: nn.Module | None = None, dtype: torch.dtype = torch.float32
) -> Reference:
    """Build the reference of ``policy``; call this before the first update.

    With LoRA it is the policy with the adapters disabled, called through ``entry`` (the DDP or FSDP wrapper; default:
    the policy itself). Otherwise it is a frozen copy on the same device, to be called under the autocast of ``dtype``
    as the policy is.
    """
    model = policy.model
    if is_lora(model):
        return Reference(policy, called=policy if entry is None else entry, disabled=model.disable_adapter)
    copied = copy_frozen(model, dtype)
    frozen = PolicyModule(copied, path=policy.path, packs_up_to=policy.packs_up_to).eval()
    frozen.max_logits_per_chunk = policy.max_logits_per_chunk
    return Reference(frozen)

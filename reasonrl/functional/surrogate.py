"""The clipped policy-gradient surrogate."""

from dataclasses import dataclass

import torch
from torch import Tensor

from reasonrl.functional.kl import safe_exp
from reasonrl.functional.masked import check_same_shape, zero_outside


@dataclass(frozen=True, kw_only=True, slots=True)
class Surrogate:
    """Per-token results, each ``[B, T]``. Outside the mask: loss 0, ratio 1, clipped False."""

    loss: Tensor
    """The loss to minimize, with gradient."""
    ratio: Tensor
    """p / p_old, detached."""
    clipped: Tensor
    """bool: the clip is active, so the token's gradient is 0."""


def clipped_surrogate(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    mask: Tensor,
    *,
    eps_low: float,
    eps_high: float,
) -> Surrogate:
    """Compute loss_t = -min(r_t A_t, clip(r_t, 1 - eps_low, 1 + eps_high) A_t) with r_t = p(token) / p_old(token).

    Source: arXiv:1707.06347 eq. 7; separate bounds: arXiv:2503.14476 eq. 8.

    Args:
        logprobs: ``[B, T]`` with gradient. old_logprobs, advantages: ``[B, T]``, constants.
        mask: ``[B, T]`` bool.
        eps_low: in [0, 1]. eps_high: >= 0.

    Raises:
        ShapeError: if the shapes differ.
    """
    check_same_shape(
        "clipped_surrogate", logprobs=logprobs, old_logprobs=old_logprobs, advantages=advantages, mask=mask
    )
    ratio = safe_exp(zero_outside(logprobs, mask) - zero_outside(old_logprobs, mask).detach())
    advantages = zero_outside(advantages, mask).detach()
    unclipped = ratio * advantages
    bounded = ratio.clamp(1.0 - eps_low, 1.0 + eps_high) * advantages
    return Surrogate(
        loss=-torch.minimum(unclipped, bounded),
        ratio=ratio.detach(),
        clipped=(bounded < unclipped).detach(),
    )

"""Policy-gradient surrogates: per-token losses whose gradients improve the policy on samples of an older one.

Throughout, r_t = p(token) / p_old(token), A_t is the advantage, a constant, and losses are to be minimized.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from reasonrl.functional.kl import safe_exp
from reasonrl.functional.masked import check_same_shape, masked_mean, zero_outside


@dataclass(frozen=True, kw_only=True, slots=True)
class Surrogate:
    """Per-token results, each ``[B, T]``. Outside the mask: loss 0, ratio 1, clipped False."""

    loss: Tensor
    """The loss to minimize, with gradient."""
    ratio: Tensor
    """p / p_old, detached."""
    clipped: Tensor
    """bool: the trust region is left, so the token's gradient is 0 (``cispo``: bounded)."""


def clipped_surrogate(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    mask: Tensor,
    *,
    eps_low: float,
    eps_high: float,
    dual_clip: float | None = None,
) -> Surrogate:
    """Compute loss_t = -min(r_t A_t, clip(r_t, 1 - eps_low, 1 + eps_high) A_t); with A_t < 0 at most -dual_clip A_t.

    Source: arXiv:1707.06347 eq. 7; separate bounds: arXiv:2503.14476 eq. 8; dual clip: arXiv:1912.09729 eq. 5.

    Args:
        logprobs: ``[B, T]`` with gradient. old_logprobs, advantages: ``[B, T]``, constants.
        mask: ``[B, T]`` bool.
        eps_low: in [0, 1]. eps_high: >= 0.
        dual_clip: > 1, or None = no second bound.

    Raises:
        ShapeError: if the shapes differ.
    """
    log_ratio = _log_ratio("clipped_surrogate", logprobs, old_logprobs, advantages, mask)
    return _clip(safe_exp(log_ratio), advantages, mask, eps_low, eps_high, dual_clip)


def sequence_surrogate(
    logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, mask: Tensor, *, eps_low: float, eps_high: float
) -> Surrogate:
    """Compute GSPO: the clipped surrogate of s_i = exp(mean_t ln r_it), the same for every token of a row.

    Averaged over each row's tokens and then over rows it is eq. 5 of arXiv:2507.18071, whose bounds are about 3e-4 and
    4e-4. Advantages must be the same for all tokens of a row.

    Args:
        logprobs, old_logprobs, advantages, mask, eps_low, eps_high: as for ``clipped_surrogate``.

    Raises:
        ShapeError: if the shapes differ.
    """
    log_ratio = _log_ratio("sequence_surrogate", logprobs, old_logprobs, advantages, mask)
    per_row = masked_mean(log_ratio, mask, dim=1)[:, None].expand(mask.shape)
    return _clip(safe_exp(zero_outside(per_row, mask)), advantages, mask, eps_low, eps_high, None)


def weighted_surrogate(
    logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, mask: Tensor, *, ratio_max: float
) -> Surrogate:
    """Compute CISPO: loss_t = -min(r_t, ratio_max) A_t ln p_t with the weight detached: no token's gradient is cut off.

    Source: arXiv:2506.13585 eqs. 4 and 5 with the upper bound alone, as recommended there; ``ratio_max`` is that bound
    itself, 1 + eps_high in the paper's terms.

    Args:
        logprobs, old_logprobs, advantages, mask: as for ``clipped_surrogate``. ratio_max: > 0.

    Raises:
        ShapeError: if the shapes differ.
    """
    log_ratio = _log_ratio("weighted_surrogate", logprobs, old_logprobs, advantages, mask)
    ratio = safe_exp(log_ratio).detach()
    weight = ratio.clamp(max=ratio_max) * zero_outside(advantages, mask).detach()
    return Surrogate(
        loss=-weight * zero_outside(logprobs, mask), ratio=ratio, clipped=(ratio > ratio_max) & (weight != 0)
    )


def soft_surrogate(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    mask: Tensor,
    *,
    temperature_pos: float,
    temperature_neg: float,
) -> Surrogate:
    """Compute SAPO: loss_t = -(4 / tau) sigmoid(tau (r_t - 1)) A_t, tau by the sign of A_t.

    A smooth gate instead of a clip: the gradient is that of r_t A_t at r_t = 1 and fades with the distance from it.
    Source: arXiv:2511.20347 eqs. 5 and 6.

    Args:
        logprobs, old_logprobs, advantages, mask: as for ``clipped_surrogate``.
        temperature_pos, temperature_neg: > 0, larger fades sooner.

    Raises:
        ShapeError: if the shapes differ.
    """
    log_ratio = _log_ratio("soft_surrogate", logprobs, old_logprobs, advantages, mask)
    ratio = safe_exp(log_ratio)
    advantages = zero_outside(advantages, mask).detach()
    tau = torch.full_like(advantages, temperature_neg).masked_fill(advantages > 0, temperature_pos)
    gate = torch.sigmoid(tau * (ratio - 1.0)) * 4.0 / tau
    return Surrogate(loss=-gate * advantages, ratio=ratio.detach(), clipped=torch.zeros_like(mask))


def trust_region_surrogate(
    logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, mask: Tensor, *, max_change: float
) -> Surrogate:
    """Compute DPPO-Binary-TV: loss_t = -M_t r_t A_t, where M_t drops tokens that have moved too far in A_t's direction.

    M_t = 0 if |p - p_old| > max_change and r_t > 1 with A_t > 0, or r_t < 1 with A_t < 0; else 1. The change of the
    probability itself, the total variation between "this token" and "another one", bounds the update of likely and
    unlikely tokens alike, which the ratio does not. Source: arXiv:2602.04879 eqs. 12 and 13.

    Args:
        logprobs, old_logprobs, advantages, mask: as for ``clipped_surrogate``. max_change: in (0, 1).

    Raises:
        ShapeError: if the shapes differ.
    """
    log_ratio = _log_ratio("trust_region_surrogate", logprobs, old_logprobs, advantages, mask)
    ratio = safe_exp(log_ratio)
    advantages = zero_outside(advantages, mask).detach()
    change = (torch.exp(zero_outside(logprobs, mask)) - torch.exp(zero_outside(old_logprobs, mask))).detach()
    dropped = (change.abs() > max_change) & (change * advantages > 0) & mask
    return Surrogate(
        loss=-torch.where(dropped, torch.zeros_like(ratio), ratio * advantages), ratio=ratio.detach(), clipped=dropped
    )


def _log_ratio(where: str, logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, mask: Tensor) -> Tensor:
    check_same_shape(where, logprobs=logprobs, old_logprobs=old_logprobs, advantages=advantages, mask=mask)
    return zero_outside(logprobs, mask) - zero_outside(old_logprobs, mask).detach()


def _clip(
    ratio: Tensor, advantages: Tensor, mask: Tensor, eps_low: float, eps_high: float, dual_clip: float | None
) -> Surrogate:
    advantages = zero_outside(advantages, mask).detach()
    unclipped = ratio * advantages
    objective = torch.minimum(unclipped, ratio.clamp(1.0 - eps_low, 1.0 + eps_high) * advantages)
    if dual_clip is not None:
        objective = torch.where(advantages < 0, torch.maximum(objective, dual_clip * advantages), objective)
    return Surrogate(loss=-objective, ratio=ratio.detach(), clipped=objective != unclipped)

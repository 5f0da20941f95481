"""Importance weights for samples of another distribution than the trainer's.

A sampler of its own precision, or of older weights, samples from mu, while the loss assumes p_old, the trainer's policy
at the start of the step. rho_t = p_old(token) / mu(token) of the sampled tokens puts that right in expectation; bounds
keep its variance finite.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from reasonrl.functional.kl import safe_exp
from reasonrl.functional.masked import check_same_shape, masked_mean, masked_sum, zero_outside

Level = Literal["token", "sequence", "geometric"]
Mode = Literal["truncate", "mask"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Correction:
    """Each ``[B, T]``, constants. Outside the mask: weight 0, bounded False."""

    weights: Tensor
    bounded: Tensor
    """bool: the weight was cut to the threshold, or the token masked."""


def rollout_correction(
    old_logprobs: Tensor,
    rollout_logprobs: Tensor,
    mask: Tensor,
    *,
    level: Level,
    mode: Mode,
    threshold: float,
    threshold_low: float | None = None,
) -> Correction:
    """Weights of the policy term of each token.

    rho is that of the token (``token``), the product over the completion (``sequence``), or the geometric mean over its
    tokens (``geometric``). ``truncate``: min(rho, threshold). ``mask``: rho within [threshold_low, threshold], else 0;
    a geometric mean decides only which completions stay, with weight 1, since as a weight it is biased.

    The field's names: token + truncate is TIS, token + mask IcePop, sequence + mask MIS. A log-probability of the
    sampler that is NaN or +inf says nothing: its token gets weight 0 and leaves products and means.

    Args:
        old_logprobs: ``[B, T]``, of the trainer. rollout_logprobs: ``[B, T]``, of the sampler.
        mask: ``[B, T]`` bool.
        threshold: >= 1. threshold_low: in [0, 1]; None = 1 / threshold.

    Raises:
        ShapeError: if the shapes differ.
        ValueError: for ``geometric`` with ``truncate``.
    """
    check_same_shape("rollout_correction", old_logprobs=old_logprobs, rollout_logprobs=rollout_logprobs, mask=mask)
    if level == "geometric" and mode == "truncate":
        raise ValueError("a geometric mean is biased as a weight; use mode mask")
    known = mask & (rollout_logprobs < float("inf"))  # neither NaN nor an impossible +inf
    log_rho = zero_outside(old_logprobs, known).detach() - zero_outside(rollout_logprobs, known)
    if level == "sequence":
        log_rho = zero_outside(masked_sum(log_rho, known, dim=1)[:, None].expand(mask.shape), known)
    elif level == "geometric":
        log_rho = zero_outside(masked_mean(log_rho, known, dim=1)[:, None].expand(mask.shape), known)
    rho = safe_exp(log_rho)
    low = 1.0 / threshold if threshold_low is None else threshold_low
    bounded = (rho > threshold) | (rho < low) if mode == "mask" else rho > threshold
    if level == "geometric":
        rho = torch.ones_like(rho)
    kept = torch.where(bounded, torch.zeros_like(rho), rho) if mode == "mask" else rho.clamp(max=threshold)
    return Correction(weights=zero_outside(kept, known), bounded=(bounded & known) | (mask & ~known))

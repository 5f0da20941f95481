"""Choosing one token per row from its logits."""

from __future__ import annotations

import torch
from torch import Tensor


def sample_tokens(logits: Tensor, uniforms: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Draw by inverting the cumulative distribution, with one uniform number per row.

    token = min {k : sum_{j <= k} p_j > u},  p = softmax(logits / temperature). One random number a token
    (the usual exponential race needs V) and the chosen token's log-probability comes for free.

    Args:
        logits: ``[B, V]`` of any float type. -inf is never chosen.
        uniforms: ``[B]`` in [0, 1), float64 where the device has it.
        temperature: > 0.

    Returns:
        Token ids ``[B]`` int64, their ln p ``[B]`` float32.
    """
    probabilities = torch.softmax(_scaled(logits, temperature), dim=-1)
    # The sum of many small terms is taken in the uniforms' wider type, or the tail would lose its share.
    cumulative = torch.cumsum(probabilities, dim=-1, dtype=uniforms.dtype)
    total = cumulative[:, -1]
    # Below the total even when rounding lifts u * total to it: then the last token of non-zero probability.
    target = torch.minimum(uniforms * total, torch.nextafter(total, torch.zeros_like(total)))
    tokens = torch.searchsorted(cumulative, target[:, None], right=True).clamp_(max=logits.shape[-1] - 1)
    return tokens[:, 0], probabilities.gather(-1, tokens)[:, 0].log().float()


def greedy_tokens(logits: Tensor) -> tuple[Tensor, Tensor]:
    """The most likely token of each row of ``logits`` ``[B, V]`` and its ln p at temperature 1. Ties: the lowest id."""
    scaled = _scaled(logits, 1.0)
    best, tokens = scaled.max(dim=-1)
    return tokens, (best - torch.logsumexp(scaled, dim=-1)).float()


def _scaled(logits: Tensor, temperature: float) -> Tensor:
    wide = logits if logits.dtype == torch.float64 else logits.float()
    return wide if temperature == 1.0 else wide / temperature

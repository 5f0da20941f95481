"""Choosing one token per row from its logits."""

from __future__ import annotations

import torch
from torch import Tensor

from reasonrl import SamplingParams


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


def truncate(logits: Tensor, sampling: SamplingParams) -> Tensor:
    """Set the logits ``[B, V]`` of tokens outside of ``top_k`` and ``top_p`` to -inf.

    Tokens as likely as the last one of ``top_k`` are kept. ``top_p`` keeps a token if those that are more likely have
    less than ``top_p`` of what ``top_k`` left; so the most likely token always stays.
    """
    scaled = _scaled(logits, sampling.temperature)
    if sampling.top_k is not None and sampling.top_k < scaled.shape[-1]:
        least = scaled.topk(sampling.top_k, dim=-1).values[:, -1:]
        scaled = scaled.masked_fill(scaled < least, float("-inf"))
    kept = scaled > float("-inf")
    if sampling.top_p < 1.0:
        probabilities, order = torch.softmax(scaled, dim=-1).sort(dim=-1, descending=True, stable=True)
        more_likely = probabilities.cumsum(-1) - probabilities
        kept &= torch.zeros_like(kept).scatter(-1, order, more_likely < sampling.top_p)
    return logits.masked_fill(~kept, float("-inf"))


def greedy_tokens(logits: Tensor) -> tuple[Tensor, Tensor]:
    """The most likely token of each row of ``logits`` ``[B, V]`` and its ln p at temperature 1. Ties: the lowest id."""
    scaled = _scaled(logits, 1.0)
    best, tokens = scaled.max(dim=-1)
    return tokens, (best - torch.logsumexp(scaled, dim=-1)).float()


def _scaled(logits: Tensor, temperature: float) -> Tensor:
    wide = logits if logits.dtype == torch.float64 else logits.float()
    return wide if temperature == 1.0 else wide / temperature

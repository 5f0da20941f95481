"""Reductions over the True positions of a mask. Other values, NaN included, have no effect."""

import torch
from torch import Tensor

from reasonrl.contracts.batch import Reduce
from reasonrl.errors import ShapeError

SPREAD_TOLERANCE = 1e-6
"""A spread below this, relative to the magnitude (at least 1), counts as rounding noise."""


def check_same_shape(where: str, **tensors: Tensor | None) -> None:
    """Raise ShapeError naming every tensor unless all given ones have the same shape."""
    shapes = {name: list(t.shape) for name, t in tensors.items() if t is not None}
    if any(shape != next(iter(shapes.values())) for shape in shapes.values()):
        got = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        raise ShapeError(f"{where}: expected tensors of equal shape, got {got}")


def zero_outside(x: Tensor, mask: Tensor) -> Tensor:
    """Return ``x`` where ``mask``, 0 elsewhere.

    Apply it *before* any arithmetic: a 0 gradient times exp(inf) upstream is NaN, so masking the result is not enough.
    """
    return torch.where(mask, x, torch.zeros_like(x))


def masked_sum(x: Tensor, mask: Tensor, dim: int | None = None) -> Tensor:
    """Sum ``x`` over ``mask`` (both ``[...]``), over everything or along ``dim``. An empty sum is 0."""
    check_same_shape("masked_sum", x=x, mask=mask)
    kept = zero_outside(x, mask)
    return kept.sum() if dim is None else kept.sum(dim)


def masked_mean(x: Tensor, mask: Tensor, dim: int | None = None) -> Tensor:
    """Average ``x`` over ``mask``, over everything or along ``dim``. An empty mean is 0."""
    count = mask.sum() if dim is None else mask.sum(dim)
    return masked_sum(x, mask, dim) / count.clamp(min=1)


def masked_moments(x: Tensor, mask: Tensor, reduce: Reduce) -> tuple[Tensor, Tensor, Tensor]:
    """Compute count, mean and population variance of ``x`` over ``mask``, across all ranks.

    Two passes: E[x^2] - E[x]^2 cancels if the mean is large compared with the spread.
    """
    count = reduce.sum(mask.sum().to(x.dtype))
    mean = reduce.sum(masked_sum(x, mask)) / count.clamp(min=1)
    variance = reduce.sum(masked_sum((zero_outside(x, mask) - mean) ** 2, mask)) / count.clamp(min=1)
    return count, mean, variance


def masked_whiten(x: Tensor, mask: Tensor, reduce: Reduce) -> Tensor:
    """Compute ``(x - mean) / std`` over the masked positions of all ranks; 0 outside the mask.

    std is the population standard deviation (ddof 0). If the spread is below ``SPREAD_TOLERANCE``, the result is 0
    instead of amplified rounding noise.

    Args:
        x, mask: ``[B, T]``; mask bool.
        reduce: sums over ranks. Every rank must call this, even one with an empty mask.

    Returns:
        ``[B, T]``, dtype of ``x``.
    """
    _, mean, variance = masked_moments(x, mask, reduce)
    std = variance.sqrt()
    is_flat = std <= SPREAD_TOLERANCE * mean.abs().clamp(min=1.0)
    whitened = (zero_outside(x, mask) - mean) / torch.where(is_flat, torch.ones_like(std), std)
    return zero_outside(whitened, mask & ~is_flat)

"""Advantages relative to the other completions of the same prompt."""

from typing import Literal

import torch
from torch import Tensor

from reasonrl.functional.masked import SPREAD_TOLERANCE, check_same_shape

Scale = Literal["std", "none"]


def group_advantages(rewards: Tensor, group_ids: Tensor, scored: Tensor, *, scale: Scale) -> Tensor:
    """A_i = (R_i - mean(R)) / std(R) over the scored completions of i's group; ``none`` does not divide.

    Source: arXiv:2402.03300 section 4.1.2; without the division: arXiv:2503.20783. Choices: std is that of
    the group as a population (ddof 0), so that |A| <= sqrt(G - 1); nothing is added to it, instead a
    group whose rewards differ by at most ``SPREAD_TOLERANCE`` gives exactly 0. Groups are told apart by id.

    Args:
        rewards: ``[B]``. group_ids: ``[B]`` int64. scored: ``[B]`` bool; other rows are left out.
    Returns: ``[B]``, dtype and device of ``rewards``; 0 for unscored rows and for a group's only scored row.
    Raises: ShapeError.
    """
    check_same_shape("group_advantages", rewards=rewards, group_ids=group_ids, scored=scored)
    # B numbers: float64 on the host costs nothing, and no atomics reorder its sums.
    rows = scored.detach().cpu().nonzero().squeeze(1)
    picked = rewards.detach().cpu().double()[rows]
    _, group = torch.unique(group_ids.detach().cpu()[rows], return_inverse=True)
    out = torch.zeros(rewards.shape[0], dtype=torch.float64)
    out[rows] = _normalise(picked, group, scale)
    return out.to(device=rewards.device, dtype=rewards.dtype)


def _normalise(rewards: Tensor, group: Tensor, scale: Scale) -> Tensor:
    num_groups = int(group.max()) + 1 if group.numel() else 0
    empty = rewards.new_zeros(num_groups)
    count = empty.index_add(0, group, torch.ones_like(rewards))
    centred = rewards - (empty.index_add(0, group, rewards) / count)[group]
    lowest = empty.scatter_reduce(0, group, rewards, "amin", include_self=False)
    highest = empty.scatter_reduce(0, group, rewards, "amax", include_self=False)
    tolerance = SPREAD_TOLERANCE * torch.maximum(lowest.abs(), highest.abs()).clamp(min=1.0)
    is_flat = (highest - lowest) <= tolerance
    if scale == "std":
        std = (empty.index_add(0, group, centred**2) / count).sqrt()
        centred = centred / torch.where(is_flat, torch.ones_like(std), std)[group]
    return centred.masked_fill(is_flat[group], 0.0)

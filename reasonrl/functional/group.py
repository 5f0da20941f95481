"""Advantages relative to the other completions of the same prompt."""

from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from reasonrl.functional.masked import SPREAD_TOLERANCE, check_same_shape

Scale = Literal["std", "none", "leave_one_out", "mean"]


def is_flat(lowest: Any, highest: Any) -> Any:
    """Whether the rewards of a group differ by rounding noise only. Takes numbers, or arrays with one entry a group.

    The one definition of a flat group: it has zero advantages and counts in ``group/zero_std_frac``.
    """
    return highest - lowest < SPREAD_TOLERANCE * np.maximum(np.maximum(abs(lowest), abs(highest)), 1.0)


def group_advantages(rewards: Tensor, group_ids: Tensor, scored: Tensor, *, scale: Scale) -> Tensor:
    """Compute A_i from the rewards R of the scored completions of i's group, n of them.

    - ``std``: (R_i - mean(R)) / std(R), arXiv:2402.03300 section 4.1.2.
    - ``none``: R_i - mean(R), arXiv:2503.20783.
    - ``leave_one_out``: R_i - mean of the others = n / (n - 1) (R_i - mean(R)), arXiv:2402.14740 section 2.3.
    - ``mean``: (R_i - mean(R)) / mean(R), arXiv:2602.02710; 0 unless the mean is positive.

    Choices: std is that of the group as a population (ddof 0), so that |A| <= sqrt(G - 1); nothing is added to it,
    instead a flat group (``is_flat``) gives exactly 0. Groups are told apart by id.

    Args:
        rewards: ``[B]``. group_ids: ``[B]`` int64. scored: ``[B]`` bool; other rows are left out.

    Returns:
        ``[B]``, dtype and device of ``rewards``; 0 for unscored rows and for a group's only scored row.

    Raises:
        ShapeError: if the shapes differ.
    """
    check_same_shape("group_advantages", rewards=rewards, group_ids=group_ids, scored=scored)
    # float64 numpy on the host: cheap for B numbers, deterministic sums, available for every device.
    host = rewards.detach().cpu().numpy()
    rows = scored.detach().cpu().numpy().nonzero()[0]
    _, group = np.unique(group_ids.detach().cpu().numpy()[rows], return_inverse=True)
    out = np.zeros(host.shape[0])
    # A non-finite reward gives NaN, which the update counts and skips.
    with np.errstate(all="ignore"):
        out[rows] = _normalize(host[rows].astype(np.float64), group, scale)
    return torch.from_numpy(out.astype(host.dtype)).to(rewards.device)


def _normalize(rewards: np.ndarray, group: np.ndarray, scale: Scale) -> np.ndarray:
    num_groups = int(group.max()) + 1 if group.size else 0
    count = np.bincount(group, minlength=num_groups)
    centered = rewards - (np.bincount(group, rewards, num_groups) / count)[group]
    lowest, highest = np.full(num_groups, np.inf), np.full(num_groups, -np.inf)
    np.minimum.at(lowest, group, rewards)
    np.maximum.at(highest, group, rewards)
    flat = is_flat(lowest, highest)
    divisor = np.ones(num_groups)
    if scale == "std":
        divisor = np.sqrt(np.bincount(group, centered**2, num_groups) / count)
    elif scale == "leave_one_out":
        divisor = (count - 1) / count
    elif scale == "mean":
        divisor = np.bincount(group, rewards, num_groups) / count
        flat = flat | (divisor <= 0)
    return np.where(flat[group], 0.0, centered / np.where(flat, 1.0, divisor)[group])

"""Generalized advantage estimation over response tokens."""

import torch
from torch import Tensor

from reasonrl.functional.masked import check_same_shape, zero_outside


def gae(
    token_rewards: Tensor, values: Tensor, response_mask: Tensor, *, gamma: float, lam: float | Tensor
) -> tuple[Tensor, Tensor]:
    """Compute advantages and returns.

    delta_t = r_t + gamma * V_{t+1} - V_t; A_t = delta_t + gamma * lam * A_{t+1}; V after the last token is 0.
    Source: arXiv:1506.02438 eq. 16. Differs: positions outside ``response_mask`` are skipped, so the token
    after a gap follows the token before it. Truncation is terminal with its real reward.

    Args:
        token_rewards: ``[B, T]``, earned by token t; the completion's reward is on its last token.
        values: ``[B, T]``, value of the state before token t.
        response_mask: ``[B, T]`` bool.
        gamma: discount per token, in [0, 1].
        lam: mixing per token, in [0, 1]; a tensor ``[B]`` gives each row its own.

    Returns:
        (advantages, returns), ``[B, T]`` as ``values``, detached, 0 outside the mask, not whitened; returns =
        advantages + values.

    Raises:
        ShapeError: if the shapes differ.

    Example:
        Rewards 0, 0, 1, values .5 .6 .7, gamma = lam = 1 gives advantages .5 .4 .3 and returns 1 1 1.
    """
    check_same_shape("gae", token_rewards=token_rewards, values=values, response_mask=response_mask)
    rewards = zero_outside(token_rewards, response_mask).detach().to(values.dtype)
    values = zero_outside(values, response_mask).detach()
    advantages = torch.zeros_like(values)
    next_value = torch.zeros_like(values[:, 0])
    next_advantage = torch.zeros_like(next_value)
    for t in range(values.shape[1] - 1, -1, -1):
        here = response_mask[:, t]
        delta = rewards[:, t] + gamma * next_value - values[:, t]
        next_advantage = torch.where(here, delta + gamma * lam * next_advantage, next_advantage)
        next_value = torch.where(here, values[:, t], next_value)
        advantages[:, t] = next_advantage
    advantages = zero_outside(advantages, response_mask)
    return advantages, advantages + values


def last_token_mask(response_mask: Tensor) -> Tensor:
    """Return ``[B, T]`` bool: True at the last response token of each row."""
    later = response_mask.flip(1).cumsum(1).flip(1)
    return response_mask & (later == 1)

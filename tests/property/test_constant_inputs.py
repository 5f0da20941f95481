"""Gradient flows through the policy's log-probabilities alone, whatever graph the other inputs come with."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from reasonrl.functional.correction import rollout_correction
from reasonrl.functional.kl import kl_loss
from reasonrl.functional.surrogate import (
    Surrogate,
    clipped_surrogate,
    sequence_surrogate,
    soft_surrogate,
    trust_region_surrogate,
    weighted_surrogate,
)

MASK = torch.tensor([[True, True, False], [True, False, True]])
SURROGATES: dict[str, Callable[..., Surrogate]] = {
    "clipped": lambda *args: clipped_surrogate(*args, eps_low=0.2, eps_high=0.2),
    "dual clip": lambda *args: clipped_surrogate(*args, eps_low=0.2, eps_high=0.2, dual_clip=3.0),
    "sequence": lambda *args: sequence_surrogate(*args, eps_low=0.2, eps_high=0.2),
    "weighted": lambda *args: weighted_surrogate(*args, ratio_max=2.0),
    "soft": lambda *args: soft_surrogate(*args, temperature_pos=1.0, temperature_neg=1.05),
    "trust region": lambda *args: trust_region_surrogate(*args, max_change=0.9),
}


def leaf(seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, 3, dtype=torch.float64, generator=generator).mul_(0.05).requires_grad_()


@pytest.mark.parametrize("name", SURROGATES)
def test_a_surrogate_differentiates_the_policy_alone(name: str) -> None:
    logprobs, old, advantages = (leaf(seed) for seed in range(3))
    found = SURROGATES[name](logprobs, old, advantages, MASK)
    assert not found.ratio.requires_grad
    assert not found.clipped.requires_grad
    gradients = torch.autograd.grad(found.loss.sum(), (logprobs, old, advantages), allow_unused=True)
    assert gradients[0] is not None
    assert (gradients[0][MASK] != 0).all()
    assert gradients[1:] == (None, None)


@pytest.mark.parametrize("estimator", ["k2", "k3"])
def test_a_kl_loss_weighted_by_the_ratio_leaves_the_old_policy_alone(estimator: str) -> None:
    logprobs, ref, old = leaf(0), leaf(1).detach(), leaf(2)
    loss = kl_loss(logprobs, ref, MASK, estimator, old_logprobs=old).sum()  # type: ignore[arg-type]
    gradients = torch.autograd.grad(loss, (logprobs, old), allow_unused=True)
    assert gradients[0] is not None
    assert gradients[1] is None


def test_a_bound_that_is_just_reached_does_not_count_as_left() -> None:
    zeros, ones = torch.zeros(2, 3), torch.ones(2, 3)
    assert not weighted_surrogate(zeros, zeros, ones, MASK, ratio_max=1.0).clipped.any()
    assert not clipped_surrogate(zeros, zeros, ones, MASK, eps_low=0.0, eps_high=0.0).clipped.any()
    assert weighted_surrogate(zeros, zeros - 1e-3, ones, MASK, ratio_max=1.0).clipped.equal(MASK)
    half = torch.full((2, 3), -math.log(2.0), dtype=torch.float64)
    assert not trust_region_surrogate(zeros.double(), half, ones.double(), MASK, max_change=0.5).clipped.any()
    assert trust_region_surrogate(zeros.double(), half, ones.double(), MASK, max_change=0.49).clipped.equal(MASK)


@pytest.mark.parametrize(("level", "mode"), [("token", "truncate"), ("sequence", "mask"), ("geometric", "mask")])
def test_weights_for_the_sampler_are_constants(level: Any, mode: Any) -> None:
    found = rollout_correction(leaf(0), leaf(1).detach(), MASK, level=level, mode=mode, threshold=2.0)
    assert not found.weights.requires_grad

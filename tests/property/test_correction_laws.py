"""Weights that correct for the sampler: agreement with the oracle, and the expectations they are for."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import correction as oracle
from reference.token_batches import random_rows

from reasonrl.functional.correction import rollout_correction

EXAMPLES = settings(max_examples=40)
WAYS = [("token", "truncate"), ("token", "mask"), ("sequence", "truncate"), ("sequence", "mask"), ("geometric", "mask")]


def tensors(rows: dict[str, Any], junk: float = 0.0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    mask = torch.tensor(rows["mask"])
    old, rollout = (torch.tensor(rows[name], dtype=torch.float64) for name in ("old_logprobs", "ref_logprobs"))
    return old.masked_fill(~mask, junk), rollout.masked_fill(~mask, junk), mask


@pytest.mark.parametrize(("level", "mode"), WAYS)
@EXAMPLES
@given(
    seed=st.integers(0, 10_000),
    threshold=st.sampled_from([1.0, 1.2, 2.0]),
    low=st.sampled_from([None, 0.0, 0.9]),
    junk=st.sampled_from([0.0, 50.0, math.nan, math.inf, -math.inf]),
    broken=st.booleans(),
)
def test_it_agrees_with_the_oracle(
    level: Any, mode: Any, seed: int, threshold: float, low: float | None, junk: float, broken: bool
) -> None:
    rows = random_rows(seed)
    old, rollout, mask = tensors(rows, junk)
    if broken:
        rollout[0, int(mask[0].nonzero()[0])] = math.nan
    got = rollout_correction(old, rollout, mask, level=level, mode=mode, threshold=threshold, threshold_low=low)
    bottom = 1 / threshold if low is None else low
    want = [
        oracle.weights(o, r, m, level, mode, threshold, bottom)
        for o, r, m in zip(old.tolist(), rollout.tolist(), rows["mask"], strict=True)
    ]
    np.testing.assert_allclose(got.weights, want, rtol=1e-12)
    assert not got.bounded[~mask].any()


@pytest.mark.parametrize(("level", "mode"), WAYS)
def test_samples_of_the_trainers_own_policy_weigh_one(level: Any, mode: Any) -> None:
    old, _, mask = tensors(random_rows(3))
    got = rollout_correction(old, old, mask, level=level, mode=mode, threshold=2.0)
    assert torch.equal(got.weights, mask.double())
    assert not got.bounded.any()


@pytest.mark.parametrize("mode", ["truncate", "mask"])
def test_a_ratio_on_a_bound_is_inside(mode: Any) -> None:
    same, mask = torch.zeros(1, 3), torch.ones(1, 3, dtype=torch.bool)
    found = rollout_correction(same, same, mask, level="token", mode=mode, threshold=1.0)
    assert found.weights.tolist() == [[1.0, 1.0, 1.0]]
    assert not found.bounded.any()


def test_infinite_log_probabilities_of_the_sampler_are_bounded() -> None:
    """A token that the sampler calls impossible counts with the threshold, never with infinity."""
    old, mask = torch.tensor([[-1.0, -1.0, -1.0]]), torch.ones(1, 3, dtype=torch.bool)
    rollout = torch.tensor([[-math.inf, math.inf, -1.0]])
    got = rollout_correction(old, rollout, mask, level="token", mode="truncate", threshold=2.0)
    torch.testing.assert_close(got.weights, torch.tensor([[2.0, 0.0, 1.0]]), atol=1e-8, rtol=0)


def test_untruncated_weights_give_the_trainers_expectation() -> None:
    """sum over tokens of mu rho f = sum of p_old f, exactly."""
    generator = torch.Generator().manual_seed(0)
    p, mu = (torch.randn(5, generator=generator, dtype=torch.float64).log_softmax(0) for _ in range(2))
    f, mask = torch.randn(5, generator=generator, dtype=torch.float64), torch.ones(5, 1, dtype=torch.bool)
    got = rollout_correction(p[:, None], mu[:, None], mask, level="token", mode="truncate", threshold=1e9)
    torch.testing.assert_close((mu.exp() * got.weights[:, 0] * f).sum(), (p.exp() * f).sum())


def test_a_geometric_mean_is_refused_as_a_weight() -> None:
    old, rollout, mask = tensors(random_rows(0))
    with pytest.raises(ValueError, match="use mode mask"):
        rollout_correction(old, rollout, mask, level="geometric", mode="truncate", threshold=2.0)


@pytest.mark.parametrize(("level", "mode"), WAYS)
def test_no_log_probability_of_the_sampler_makes_a_weight_nan(level: Any, mode: Any) -> None:
    """Both infinities in one completion do not cancel to NaN in its product or mean."""
    old, mask = torch.full((1, 4), -1.0), torch.ones(1, 4, dtype=torch.bool)
    rollout = torch.tensor([[-math.inf, math.inf, math.nan, -1.0]])
    got = rollout_correction(old, rollout, mask, level=level, mode=mode, threshold=2.0)
    assert torch.isfinite(got.weights).all()
    assert got.weights[0, 1:3].tolist() == [0.0, 0.0]

"""Laws of the shared maths."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import gae as gae_oracle
from reference import grpo as grpo_oracle
from reference import kl as kl_oracle

from reasonrl.contracts.batch import LossNormalizer, Reduce
from reasonrl.functional.aggregate import constant_length_share, sequence_mean_share, token_mean_share
from reasonrl.functional.gae import gae, last_token_mask
from reasonrl.functional.group import group_advantages
from reasonrl.functional.kl import kl_estimate, kl_loss
from reasonrl.functional.logprobs import logprobs_and_entropy
from reasonrl.functional.masked import masked_mean, masked_sum, masked_whiten

EXAMPLES = settings(max_examples=25)
SEEDS = st.integers(0, 10_000)
JUNK = st.sampled_from([0.0, 1e30, math.nan, math.inf, -math.inf])
UNIT = st.sampled_from([0.0, 0.3, 0.95, 1.0])


def random_case(seed: int, rows: int = 4, columns: int = 7) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Two float64 arrays and a mask with gaps and possibly empty rows."""
    generator = torch.Generator().manual_seed(seed)
    a, b = (torch.randn(rows, columns, dtype=torch.float64, generator=generator) for _ in range(2))
    return a, b, torch.rand(rows, columns, generator=generator) < 0.6


@EXAMPLES
@given(SEEDS, UNIT, UNIT)
def test_gae_agrees_with_the_oracle(seed: int, gamma: float, lam: float) -> None:
    rewards, values, mask = random_case(seed)
    advantages, returns = gae(rewards, values, mask, gamma=gamma, lam=lam)
    for i in range(len(mask)):
        want = gae_oracle.gae_row(rewards[i].tolist(), values[i].tolist(), mask[i].tolist(), gamma, lam)
        np.testing.assert_allclose(advantages[i], want[0], rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(returns[i], want[1], rtol=1e-9, atol=1e-12)


@EXAMPLES
@given(SEEDS, UNIT)
def test_gae_lam_1_is_reward_to_go_minus_value(seed: int, gamma: float) -> None:
    rewards, values, mask = random_case(seed)
    advantages, returns = gae(rewards, values, mask, gamma=gamma, lam=1.0)
    for i in range(len(mask)):
        steps = mask[i].nonzero().flatten().tolist()
        for k, t in enumerate(steps):
            to_go = sum(gamma**j * rewards[i, s].item() for j, s in enumerate(steps[k:]))
            assert returns[i, t].item() == pytest.approx(to_go, rel=1e-9, abs=1e-12)
            assert advantages[i, t].item() == pytest.approx(to_go - values[i, t].item(), rel=1e-9, abs=1e-12)


@EXAMPLES
@given(SEEDS, UNIT)
def test_gae_lam_0_is_the_td_error(seed: int, gamma: float) -> None:
    rewards, values, mask = random_case(seed)
    advantages, _ = gae(rewards, values, mask, gamma=gamma, lam=0.0)
    for i in range(len(mask)):
        steps = mask[i].nonzero().flatten().tolist()
        for t, following in zip(steps, [*steps, None][1:], strict=True):
            after = 0.0 if following is None else values[i, following].item()
            want = rewards[i, t].item() + gamma * after - values[i, t].item()
            assert advantages[i, t].item() == pytest.approx(want, rel=1e-9, abs=1e-12)


@EXAMPLES
@given(SEEDS, JUNK)
def test_masked_positions_never_matter(seed: int, junk: float) -> None:
    a, b, mask = random_case(seed)
    dirty_a, dirty_b = (x.masked_fill(~mask, junk) for x in (a, b))
    for clean, dirty in (
        (masked_sum(a, mask), masked_sum(dirty_a, mask)),
        (masked_mean(a, mask, dim=1), masked_mean(dirty_a, mask, dim=1)),
        (masked_whiten(a, mask, Reduce()), masked_whiten(dirty_a, mask, Reduce())),
        (gae(a, b, mask, gamma=0.9, lam=0.9)[0], gae(dirty_a, dirty_b, mask, gamma=0.9, lam=0.9)[0]),
        (kl_estimate(a, b, mask, "k3"), kl_estimate(dirty_a, dirty_b, mask, "k3")),
    ):
        assert torch.equal(clean, dirty)


@EXAMPLES
@given(SEEDS, JUNK)
def test_masked_gradients_never_see_what_is_outside(seed: int, junk: float) -> None:
    a, b, mask = random_case(seed)
    leaf = a.masked_fill(~mask, junk).requires_grad_()
    loss = masked_whiten(leaf, mask, Reduce()).pow(3).sum() + kl_loss(leaf, b, mask, "k3").sum()
    loss = loss + masked_mean(leaf, mask, dim=1).pow(2).sum()
    loss.backward()
    assert torch.isfinite(leaf.grad[mask]).all()
    assert (leaf.grad[~mask] == 0).all()


@EXAMPLES
@given(SEEDS)
def test_masked_whiten_has_mean_0_and_std_1(seed: int) -> None:
    x, _, mask = random_case(seed)
    white = masked_whiten(1e4 + 3 * x, mask, Reduce())
    if mask.sum() > 1:
        assert white[mask].mean().item() == pytest.approx(0, abs=1e-9)
        assert white[mask].std(correction=0).item() == pytest.approx(1, rel=1e-9)
    assert (white[~mask] == 0).all()


@EXAMPLES
@given(SEEDS, st.sampled_from(["k1", "k2", "k3"]))
def test_kl_estimates_agree_with_the_oracle(seed: int, estimator: str) -> None:
    a, b, mask = random_case(seed)
    got = kl_estimate(a, b, mask, estimator)
    for i, t in mask.nonzero().tolist():
        want = kl_oracle.estimate(a[i, t].item(), b[i, t].item(), estimator)
        assert got[i, t].item() == pytest.approx(want, rel=1e-9, abs=1e-12)
    assert (got[~mask] == 0).all()
    if estimator != "k1":
        assert (got >= 0).all()


@EXAMPLES
@given(st.lists(st.floats(-3, 3), min_size=6, max_size=6))
def test_kl_identities_by_enumeration(numbers: list[float]) -> None:
    """Values: E k1 = E k3 = KL. Gradients: E grad k1 = 0, k2 the reverse KL's, k3 the forward KL's."""
    logits = torch.tensor(numbers[:3], dtype=torch.float64, requires_grad=True)
    q = kl_oracle.softmax(numbers[3:])
    p = kl_oracle.softmax(numbers[:3])
    logq = torch.tensor(q, dtype=torch.float64).log()
    everywhere = torch.ones(3, dtype=torch.bool)
    gradients = {}
    for estimator in ("k1", "k2", "k3"):
        per_token = kl_estimate(torch.log_softmax(logits, -1), logq, everywhere, estimator)
        mean = (torch.tensor(p, dtype=torch.float64) * per_token).sum()
        (gradients[estimator],) = torch.autograd.grad(mean, logits)
        if estimator != "k2":
            assert mean.item() == pytest.approx(kl_oracle.divergence(p, q), rel=1e-9, abs=1e-12)
    np.testing.assert_allclose(gradients["k1"], 0, atol=1e-12)
    np.testing.assert_allclose(gradients["k2"], kl_oracle.reverse_gradient(numbers[:3], q), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(gradients["k3"], kl_oracle.forward_gradient(numbers[:3], q), rtol=1e-9, atol=1e-12)


@EXAMPLES
@given(SEEDS, st.sampled_from(["std", "none"]), st.sampled_from([torch.float64, torch.float32]))
def test_group_advantages_agree_with_the_oracle(seed: int, scale: str, dtype: torch.dtype) -> None:
    rng = np.random.default_rng(seed)
    rewards = rng.choice([0.0, 0.1, 0.25, 1.0], 12)
    groups, scored = rng.integers(0, 4, 12) * 5 - 3, rng.random(12) < 0.8
    tensors = torch.tensor(rewards, dtype=dtype), torch.tensor(groups), torch.tensor(scored)
    got = group_advantages(*tensors, scale=scale)
    want = grpo_oracle.advantages(rewards.tolist(), groups.tolist(), scored.tolist(), scale)
    np.testing.assert_allclose(got, want, rtol=1e-9 if dtype == torch.float64 else 1e-5, atol=1e-6)
    assert got.dtype == dtype
    for group in set(groups.tolist()):
        assert got[tensors[1] == group].sum().item() == pytest.approx(0, abs=1e-5)


@EXAMPLES
@given(st.floats(-1e4, 1e4, width=32), SEEDS)
def test_group_advantages_of_constant_rewards_are_exactly_0(reward: float, seed: int) -> None:
    """Rounding noise included: one part in ten million is no signal."""
    noise = torch.rand(8, generator=torch.Generator().manual_seed(seed)) * 1e-7 * max(1.0, abs(reward))
    rewards = torch.full((8,), reward) + noise
    got = group_advantages(rewards, torch.zeros(8, dtype=torch.int64), torch.ones(8, dtype=torch.bool), scale="std")
    assert (got == 0).all()


@EXAMPLES
@given(
    SEEDS,
    st.sampled_from([0.6, 1.0, 1.7]),
    st.integers(1, 6),
    st.sampled_from([torch.float64, torch.float32]),
)
def test_logprobs_agree_with_the_oracle(seed: int, temperature: float, chunk: int, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = 4 * torch.randn(5, 11, dtype=torch.float64, generator=generator)
    ids = torch.randint(11, (5,), generator=generator)
    got = logprobs_and_entropy(logits.to(dtype), ids, temperature=temperature, entropy="metric", chunk_size=chunk)
    want = [
        kl_oracle.logprob_and_entropy(row, token, temperature)
        for row, token in zip(logits.tolist(), ids.tolist(), strict=True)
    ]
    tolerance = 1e-9 if dtype == torch.float64 else 1e-4
    for column, values in enumerate(got):
        np.testing.assert_allclose(values, [w[column] for w in want], rtol=tolerance, atol=tolerance / 100)
    assert (got[1] >= 0).all()
    assert (got[1] <= math.log(11) + 1e-6).all()


@EXAMPLES
@given(SEEDS, st.integers(1, 7), st.sampled_from(["none", "metric", "grad"]))
def test_logprobs_do_not_depend_on_the_chunk(seed: int, chunk: int, mode: str) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(6, 9, generator=generator)
    ids = torch.randint(9, (6,), generator=generator)
    results = []
    for size in (chunk, None):
        leaf = logits.clone().requires_grad_()
        logprobs, entropy = logprobs_and_entropy(leaf, ids, temperature=0.7, entropy=mode, chunk_size=size)
        loss = logprobs.sum() if mode != "grad" else logprobs.sum() + 0.3 * entropy.pow(2).sum()
        loss.backward()
        results.append((logprobs, leaf.grad) if entropy is None else (logprobs, leaf.grad, entropy))
    for a, b in zip(*results, strict=True):
        assert torch.equal(a, b)


@EXAMPLES
@given(SEEDS, st.sampled_from([token_mean_share, sequence_mean_share, partial(constant_length_share, length=7)]))
def test_shares_add_up(seed: int, share: object) -> None:
    x, _, mask = random_case(seed)
    normalizer = LossNormalizer(num_response_tokens=float(mask.sum()), num_sequences=float(mask.any(1).sum()))
    whole = share(x, mask, normalizer)
    parts = sum(share(x[i : i + 1], mask[i : i + 1], normalizer) for i in range(len(x)))
    assert parts.item() == pytest.approx(whole.item(), rel=1e-9, abs=1e-12)


@EXAMPLES
@given(SEEDS)
def test_last_token_is_the_last_of_each_row(seed: int) -> None:
    _, _, mask = random_case(seed)
    got = last_token_mask(mask)
    for i in range(len(mask)):
        steps = mask[i].nonzero().flatten().tolist()
        assert got[i].nonzero().flatten().tolist() == steps[-1:]

"""Numbers worked out by hand, and the messages of what is refused."""

import math

import pytest
import torch

from reasonrl.contracts.batch import LossNormalizer, Reduce
from reasonrl.errors import ShapeError
from reasonrl.functional.aggregate import constant_length_share, sequence_mean_share, token_mean_share
from reasonrl.functional.gae import gae, last_token_mask
from reasonrl.functional.group import group_advantages
from reasonrl.functional.kl import kl_estimate, kl_loss, safe_exp
from reasonrl.functional.logprobs import logprobs_and_entropy
from reasonrl.functional.masked import masked_mean, masked_moments, masked_sum, masked_whiten
from reasonrl.functional.surrogate import clipped_surrogate

NAN = math.nan


def test_gae_by_hand() -> None:
    # One prompt token, two response tokens, a gap (say, a tool's answer), one response token, padding.
    mask = torch.tensor([[False, True, True, False, True, False]])
    rewards = torch.tensor([[NAN, 0.0, 0.5, NAN, 1.0, NAN]])
    values = torch.tensor([[NAN, 0.2, 0.4, NAN, 0.6, NAN]])
    # gamma 0.5, lam 0.8: gamma * lam = 0.4
    # last:   delta = 1.0            - 0.6 = 0.4    A = 0.4
    # second: delta = 0.5 + 0.5*0.6  - 0.4 = 0.4    A = 0.4  + 0.4*0.4  = 0.56
    # first:  delta = 0.0 + 0.5*0.4  - 0.2 = 0.0    A = 0.0  + 0.4*0.56 = 0.224
    advantages, returns = gae(rewards, values, mask, gamma=0.5, lam=0.8)
    torch.testing.assert_close(advantages, torch.tensor([[0.0, 0.224, 0.56, 0.0, 0.4, 0.0]]))
    torch.testing.assert_close(returns, torch.tensor([[0.0, 0.424, 0.96, 0.0, 1.0, 0.0]]))


@pytest.mark.parametrize("which", [0, 1])
def test_advantages_and_returns_carry_no_gradient(which: int) -> None:
    mask = torch.ones(1, 3, dtype=torch.bool)
    inputs = [torch.rand(1, 3), torch.rand(1, 3)]
    inputs[which].requires_grad_()
    assert not any(out.requires_grad for out in gae(*inputs, mask, gamma=1.0, lam=1.0))


def test_gae_monte_carlo_by_hand() -> None:
    # The docstring's example: reward 1 at the end, gamma = lam = 1: every return is 1.
    mask = torch.ones(1, 3, dtype=torch.bool)
    advantages, returns = gae(
        torch.tensor([[0.0, 0.0, 1.0]]), torch.tensor([[0.5, 0.6, 0.7]]), mask, gamma=1.0, lam=1.0
    )
    torch.testing.assert_close(advantages, torch.tensor([[0.5, 0.4, 0.3]]))
    torch.testing.assert_close(returns, torch.ones(1, 3))


def test_gae_has_no_gradient() -> None:
    values = torch.zeros(1, 2, requires_grad=True)
    advantages, returns = gae(torch.ones(1, 2), values, torch.ones(1, 2, dtype=torch.bool), gamma=1.0, lam=1.0)
    assert not advantages.requires_grad
    assert not returns.requires_grad


def test_gae_names_the_shapes_that_differ() -> None:
    with pytest.raises(
        ShapeError, match=r"gae: expected tensors of equal shape, got token_rewards \[1, 2\], values \[1, 3\]"
    ):
        gae(torch.ones(1, 2), torch.ones(1, 3), torch.ones(1, 2, dtype=torch.bool), gamma=1.0, lam=1.0)


def test_last_token_mask_of_gaps_and_empty_rows() -> None:
    mask = torch.tensor([[False, True, False, True, False], [False, False, False, False, False]])
    assert last_token_mask(mask).tolist() == [[False, False, False, True, False], [False] * 5]


def test_whiten_by_hand() -> None:
    # 1, 3, 5, 7 have mean 4 and population variance (9 + 1 + 1 + 9) / 4 = 5.
    x = torch.tensor([[1.0, 3.0, NAN], [5.0, 7.0, math.inf]])
    mask = torch.tensor([[True, True, False], [True, True, False]])
    root = math.sqrt(5)
    want = torch.tensor([[-3 / root, -1 / root, 0.0], [1 / root, 3 / root, 0.0]])
    torch.testing.assert_close(masked_whiten(x, mask, Reduce()), want)


FLAT = [[0.1, 0.1, 0.1], [1000.0, 1000.0, 1000.0001], [-1000.0, -1000.0001], [3.0], [1e-9, -1e-9]]


@pytest.mark.parametrize("values", FLAT)
def test_whiten_of_no_spread_is_exactly_0(values: list[float]) -> None:
    x = torch.tensor([values])
    assert (masked_whiten(x, torch.ones_like(x, dtype=torch.bool), Reduce()) == 0).all()


def test_whiten_of_nothing_is_0() -> None:
    x = torch.tensor([[NAN, 2.0]])
    assert masked_whiten(x, torch.zeros(1, 2, dtype=torch.bool), Reduce()).tolist() == [[0.0, 0.0]]


def test_masked_reductions_by_hand() -> None:
    x = torch.tensor([[1.0, 2.0, NAN], [4.0, 8.0, 16.0]])
    mask = torch.tensor([[True, True, False], [False, True, True]])
    assert (masked_sum(x, mask).item(), masked_mean(x, mask).item()) == (27.0, 6.75)
    assert masked_sum(x, mask, dim=1).tolist() == [3.0, 24.0]
    assert masked_mean(x, mask, dim=1).tolist() == [1.5, 12.0]
    assert masked_mean(x, mask, dim=0).tolist() == [1.0, 5.0, 16.0]


def test_moments_of_nothing_are_0() -> None:
    x = torch.tensor([[NAN, 2.0]])
    assert [m.item() for m in masked_moments(x, torch.zeros(1, 2, dtype=torch.bool), Reduce())] == [0.0, 0.0, 0.0]


def test_masked_reductions_of_nothing_are_0() -> None:
    x, mask = torch.tensor([[NAN, NAN], [2.0, NAN]]), torch.tensor([[False, False], [True, False]])
    assert masked_sum(x, mask).item() == 2.0
    assert masked_mean(x, mask, dim=1).tolist() == [0.0, 2.0]


def test_aggregates_by_hand() -> None:
    # Row losses 1, 2 | 6 of 3 tokens and 2 sequences; the step has 10 tokens and 4 sequences.
    x = torch.tensor([[NAN, 1.0, 2.0], [NAN, 6.0, NAN]])
    mask = torch.tensor([[False, True, True], [False, True, False]])
    normalizer = LossNormalizer(num_response_tokens=10.0, num_sequences=4.0)
    assert token_mean_share(x, mask, normalizer).item() == pytest.approx((1 + 2 + 6) / 10)
    assert sequence_mean_share(x, mask, normalizer).item() == pytest.approx((1.5 + 6) / 4)
    assert constant_length_share(x, mask, normalizer, 5).item() == pytest.approx((1 + 2 + 6) / (4 * 5))


def test_aggregates_of_a_dummy_row_are_0() -> None:
    x, mask = torch.full((1, 3), NAN, requires_grad=True), torch.zeros(1, 3, dtype=torch.bool)
    nothing = LossNormalizer(num_response_tokens=0.0, num_sequences=0.0)
    for share in (token_mean_share, sequence_mean_share):
        loss = share(x, mask, nothing)
        (gradient,) = torch.autograd.grad(loss, x)
        assert loss.item() == 0.0
        assert gradient.tolist() == [[0.0, 0.0, 0.0]]


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "gradient", "clipped"),
    [
        (1.1, 2.0, -2.2, -2.2, False),
        (1.5, 2.0, -2.6, 0.0, True),  # clip at 1.3
        (0.5, 2.0, -1.0, -1.0, False),  # a fallen good token may rise again
        (0.5, -2.0, 1.6, 0.0, True),  # clip at 0.8
        (1.5, -2.0, 3.0, 3.0, False),  # a risen bad token may fall again
        (1.5, 0.0, 0.0, 0.0, False),
    ],
)
def test_surrogate_by_hand(ratio: float, advantage: float, loss: float, gradient: float, clipped: bool) -> None:
    logprobs = torch.tensor([[NAN, math.log(ratio) - 1.0]], dtype=torch.float64, requires_grad=True)
    mask = torch.tensor([[False, True]])
    got = clipped_surrogate(
        logprobs,
        torch.tensor([[NAN, -1.0]], dtype=torch.float64),
        torch.tensor([[NAN, advantage]], dtype=torch.float64),
        mask,
        eps_low=0.2,
        eps_high=0.3,
    )
    got.loss.sum().backward()
    assert got.loss.tolist() == [[0.0, pytest.approx(loss)]]
    assert logprobs.grad.tolist() == [[0.0, pytest.approx(gradient)]]
    assert got.clipped.tolist() == [[False, clipped]]
    assert got.ratio.tolist() == [[1.0, pytest.approx(ratio)]]


def test_surrogate_stays_finite_when_the_policy_left() -> None:
    logprobs = torch.tensor([[-1e4, 0.0]], requires_grad=True)
    old = torch.tensor([[0.0, -1e4]])
    got = clipped_surrogate(
        logprobs,
        old,
        torch.tensor([[-1.0, -1.0]]),
        torch.ones(1, 2, dtype=torch.bool),
        eps_low=0.2,
        eps_high=0.2,
    )
    got.loss.sum().backward()
    assert torch.isfinite(got.loss).all()
    assert torch.isfinite(logprobs.grad).all()


def test_a_nan_inside_the_mask_stays_visible() -> None:
    mask = torch.ones(1, 1, dtype=torch.bool)
    broken, fine = torch.tensor([[NAN]]), torch.tensor([[0.0]])
    assert safe_exp(broken).isnan().all()
    assert clipped_surrogate(broken, fine, fine + 1, mask, eps_low=0.2, eps_high=0.2).loss.isnan().all()
    assert kl_estimate(broken, fine, mask, "k3").isnan().all()


def test_k3_keeps_its_digits_near_0() -> None:
    x = torch.tensor([[1e-4]])  # k3 = x^2 / 2 - x^3 / 6: in float32 exp(-x) - 1 + x would be pure noise
    got = kl_estimate(x, torch.zeros_like(x), torch.ones_like(x, dtype=torch.bool), "k3")
    assert got.item() == pytest.approx(5e-9, rel=2e-2)


def test_k3_never_pulls_away_from_the_reference() -> None:
    """1 - exp(-x) has the sign of x; beyond the clamp the gradient is 0, and not the +1 of a term left over."""
    x = torch.tensor([[-400.0, -21.0, -19.0, -1.0, 1.0, 19.0, 21.0]], dtype=torch.float64, requires_grad=True)
    kl_estimate(x, torch.zeros_like(x), torch.ones_like(x, dtype=torch.bool), "k3").sum().backward()
    assert x.grad is not None
    assert x.grad.tolist()[0] == pytest.approx([0.0, 0.0, 1 - math.exp(19), 1 - math.e, 1 - 1 / math.e, 1.0, 0.0])


def test_k1_is_refused_in_the_loss() -> None:
    x = torch.zeros(1, 1)
    with pytest.raises(ValueError, match="KL in the loss needs k2 or k3, got 'k1'; use k1 in the reward"):
        kl_loss(x, x, x.bool(), "k1")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="KL estimator must be k1, k2 or k3, got 'k4'"):
        kl_estimate(x, x, x.bool(), "k4")  # type: ignore[arg-type]


def test_group_advantages_by_hand() -> None:
    # Group 5: rewards 1, 0, 0, 1: mean 0.5, population std 0.5. Group 2: one scored row only.
    rewards = torch.tensor([1.0, 7.0, 0.0, 0.0, NAN, 1.0])
    groups = torch.tensor([5, 2, 5, 5, 2, 5])
    scored = torch.tensor([True, True, True, True, False, True])
    assert group_advantages(rewards, groups, scored, scale="std").tolist() == [1.0, 0.0, -1.0, -1.0, 0.0, 1.0]
    assert group_advantages(rewards, groups, scored, scale="none").tolist() == [
        0.5,
        0.0,
        -0.5,
        -0.5,
        0.0,
        0.5,
    ]


def test_group_advantages_of_nothing_scored_are_0() -> None:
    nothing = torch.zeros(2, dtype=torch.bool)
    got = group_advantages(torch.tensor([1.0, 2.0]), torch.tensor([0, 0]), nothing, scale="std")
    assert got.tolist() == [0.0, 0.0]


def test_logprobs_of_bfloat16_are_float32_and_near() -> None:
    logits = torch.randn(4, 300, generator=torch.Generator().manual_seed(0)).bfloat16().requires_grad_()
    ids = torch.tensor([0, 5, 299, 7])
    logprobs, entropy = logprobs_and_entropy(logits, ids, entropy="metric")
    want = torch.log_softmax(logits.double(), -1)
    assert logprobs.dtype == torch.float32
    torch.testing.assert_close(logprobs.double(), want.gather(1, ids[:, None]).squeeze(1), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(entropy.double(), -(want.exp() * want).sum(-1), rtol=1e-5, atol=1e-5)
    logprobs.sum().backward()
    assert logits.grad.dtype == torch.bfloat16


def test_logprobs_gradients_against_finite_differences() -> None:
    logits = torch.randn(5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    ids = torch.tensor([0, 3, 1, 1, 2])

    def both(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        return logprobs_and_entropy(x, ids, temperature=0.7, entropy="grad", chunk_size=2)

    assert torch.autograd.gradcheck(both, (logits,))


def test_logprobs_entropy_as_metric_has_no_gradient() -> None:
    logits = torch.randn(2, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    logprobs, entropy = logprobs_and_entropy(logits, torch.tensor([0, 1]), entropy="metric")
    assert logprobs.requires_grad
    assert not entropy.requires_grad


def test_logprobs_with_forbidden_tokens() -> None:
    # Two of four tokens are forbidden: ln p = -ln 2, H = ln 2, and no gradient reaches them.
    logits = torch.tensor([[0.0, -math.inf, 0.0, -math.inf]], dtype=torch.float64, requires_grad=True)
    logprobs, entropy = logprobs_and_entropy(logits, torch.tensor([0]), entropy="grad")
    (logprobs + entropy).sum().backward()
    assert logprobs.item() == pytest.approx(-math.log(2))
    assert entropy.item() == pytest.approx(math.log(2))
    assert logits.grad.tolist() == [[pytest.approx(0.5), 0.0, pytest.approx(-0.5), 0.0]]


def test_logprobs_of_huge_logits_are_finite() -> None:
    logprobs, entropy = logprobs_and_entropy(torch.tensor([[1e4, -1e4]]), torch.tensor([1]), entropy="metric")
    assert logprobs.item() == -2e4
    assert entropy.item() == 0.0


def test_logprobs_keep_no_second_copy_of_the_logits() -> None:
    logits = torch.randn(64, 50, generator=torch.Generator().manual_seed(0)).requires_grad_()
    kept: list[torch.Tensor] = []

    def keep(x: torch.Tensor) -> torch.Tensor:
        kept.append(x)
        return x

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        logprobs_and_entropy(logits, torch.zeros(64, dtype=torch.int64), temperature=0.5, entropy="grad")
    large = [x for x in kept if x.numel() >= logits.numel()]
    assert [x.data_ptr() for x in large] == [logits.data_ptr()]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": 0.0}, "temperature must be > 0, got 0.0; for greedy sampling use 1.0"),
        ({"chunk_size": 0}, "chunk_size must be >= 1, got 0"),
    ],
)
def test_logprobs_refuse_bad_options(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        logprobs_and_entropy(torch.zeros(1, 2), torch.zeros(1, dtype=torch.int64), **options)


def test_logprobs_refuse_other_shapes() -> None:
    with pytest.raises(ShapeError, match=r"got \[1, 2, 3\] and \[1, 2\]"):
        logprobs_and_entropy(torch.zeros(1, 2, 3), torch.zeros(1, 2, dtype=torch.int64))


def test_logprobs_of_no_rows() -> None:
    logits = torch.zeros(0, 5, requires_grad=True)
    logprobs, entropy = logprobs_and_entropy(logits, torch.zeros(0, dtype=torch.int64), entropy="grad")
    (logprobs.sum() + entropy.sum()).backward()
    assert logprobs.shape == entropy.shape == (0,)
    assert logits.grad.shape == (0, 5)


def test_the_dual_clip_bounds_the_loss() -> None:
    """With a negative advantage, a ratio of 8 costs 3 and has no gradient; a positive one is clipped as usual."""
    logprobs = torch.log(torch.tensor([[8.0, 8.0, 2.0]], dtype=torch.float64)).requires_grad_()
    old, mask = torch.zeros(1, 3, dtype=torch.float64), torch.ones(1, 3, dtype=torch.bool)
    advantages = torch.tensor([[-1.0, 1.0, -1.0]], dtype=torch.float64)
    got = clipped_surrogate(logprobs, old, advantages, mask, eps_low=0.2, eps_high=0.2, dual_clip=3.0)
    (gradient,) = torch.autograd.grad(got.loss.sum(), logprobs)
    torch.testing.assert_close(got.loss.detach(), torch.tensor([[3.0, -1.2, 2.0]], dtype=torch.float64))
    torch.testing.assert_close(gradient, torch.tensor([[0.0, 0.0, 2.0]], dtype=torch.float64))
    assert got.clipped.tolist() == [[True, True, False]]

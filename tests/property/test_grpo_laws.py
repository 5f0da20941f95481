"""GRPO: agreement with the oracle, and what its loss and gradients must not depend on."""

import math

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import grpo as oracle
from reference.token_batches import Layout, assert_same, on_first_pass, random_rows, run

from reasonrl import AlgorithmContext, SamplingParams
from reasonrl_critic_free.algorithm import GRPO
from reasonrl_critic_free.config import GRPOConfig, KLConfig

EXAMPLES = settings(max_examples=25)
CONFIGS = st.sampled_from(
    [
        GRPOConfig(),
        GRPOConfig(normalization="sequence", clip_eps_high=0.28, scale="none"),
        GRPOConfig(normalization="sequence", kl=KLConfig(coef=0.3), entropy_coef=0.01),
        GRPOConfig(kl=KLConfig(coef=0.3, estimator="k2"), clip_eps=0.1),
    ]
)
SEEDS = st.integers(0, 10_000)


def build(config: GRPOConfig) -> GRPO:
    return GRPO(config, AlgorithmContext(sampling=SamplingParams(), group_size=3, total_steps=10))


def expected(rows: dict, config: GRPOConfig) -> tuple[oracle.Gradients, list[float]]:
    extra = [
        sum(x for x, taken in zip(values, mask, strict=True) if taken)
        for values, mask in zip(rows["token_rewards"], rows["mask"], strict=True)
    ]
    rewards = [r + e for r, e in zip(rows["rewards"], extra, strict=True)]
    adv = oracle.advantages(rewards, rows["groups"], rows["scored"], config.scale)
    options = {
        "low": config.clip_eps,
        "high": config.eps_high,
        "normalization": config.normalization,
        "kl": config.kl.coef,
        "estimator": config.kl.estimator,
        "entropy_coef": config.entropy_coef,
    }
    return oracle.loss(rows, adv, options), adv


@EXAMPLES
@given(SEEDS, CONFIGS, st.sampled_from([(torch.float64, 1e-9), (torch.float32, 1e-4)]))
def test_grpo_agrees_with_the_oracle(seed: int, config: GRPOConfig, precision: tuple[torch.dtype, float]) -> None:
    dtype, tolerance = precision
    rows = random_rows(seed)
    got = run(build(config), rows, Layout(dtype=dtype))
    want, per_row = expected(rows, config)
    close = {"rtol": tolerance, "atol": tolerance / 10}
    np.testing.assert_allclose(got.advantages, np.array(per_row)[:, None] * np.array(rows["mask"]), **close)
    np.testing.assert_allclose(got.loss, want.loss, **close)
    np.testing.assert_allclose(got.gradients["logprobs"], want.logprobs, **close)
    np.testing.assert_allclose(got.gradients["entropy"], want.entropy, **close)


@EXAMPLES
@given(SEEDS, CONFIGS, st.data())
def test_grpo_ignores_layout_and_split(seed: int, config: GRPOConfig, data: st.DataObject) -> None:
    rows = random_rows(seed)
    order = tuple(data.draw(st.permutations(range(6))))
    splits = data.draw(st.sampled_from([(1,) * 6, (2, 4), (3, 3), (5, 1)]))
    columns = data.draw(st.integers(0, 3))
    junk = data.draw(st.sampled_from([0.0, 100.0, math.nan, math.inf, -math.inf]))
    for dtype, rtol, atol in ((torch.float64, 1e-9, 1e-12), (torch.float32, 1e-4, 1e-5)):
        plain = run(build(config), rows, Layout(dtype=dtype))
        other = Layout(dtype=dtype, order=order, extra_columns=columns, junk=junk, splits=splits)
        assert_same(run(build(config), rows, other), plain, rtol=rtol, atol=atol)


@EXAMPLES
@given(SEEDS, CONFIGS)
def test_grpo_rows_that_do_not_contribute_have_no_gradient(seed: int, config: GRPOConfig) -> None:
    rows = random_rows(seed)
    rows |= {"token_rewards": [[0.0] * len(m) for m in rows["mask"]]}
    got = run(build(config), rows)
    dropped = ~got.contributes
    for gradient in got.gradients.values():
        assert (gradient[dropped] == 0).all()
    if config.kl.coef == 0 and config.entropy_coef == 0:
        np.testing.assert_array_equal(got.contributes, (got.advantages != 0).any(axis=1))
    else:
        np.testing.assert_array_equal(got.contributes, np.array(rows["mask"]).any(axis=1))


@EXAMPLES
@given(SEEDS)
def test_grpo_first_pass_is_reinforce(seed: int) -> None:
    rows = on_first_pass(random_rows(seed))
    got = run(build(GRPOConfig()), rows)
    num_tokens = np.array(rows["mask"]).sum()
    assert got.metrics["policy/clip_frac"] == 0
    assert got.metrics["policy/ratio_max"] == 1
    np.testing.assert_allclose(got.gradients["logprobs"], -got.advantages / num_tokens, rtol=1e-12)


@EXAMPLES
@given(SEEDS)
def test_grpo_groups_are_told_apart_by_id_alone(seed: int) -> None:
    """Interleaved groups and renamed ids give the same; one common id gives something else."""
    rows = random_rows(seed) | {"scored": [True] * 6, "rewards": [0.0, 1.0, 1.0, 5.0, 5.0, 6.0]}
    rows |= {"mask": [[False, True] + [False] * 6] * 6, "token_rewards": [[0.0] * 8] * 6}
    plain = run(build(GRPOConfig()), rows)
    mixed = run(build(GRPOConfig()), rows, Layout(order=(0, 3, 1, 4, 2, 5)))
    renamed = run(build(GRPOConfig()), {**rows, "groups": [99, 99, 99, 4, 4, 4]})
    merged = run(build(GRPOConfig()), {**rows, "groups": [1] * 6})
    np.testing.assert_allclose(mixed.advantages, plain.advantages, rtol=1e-12)
    np.testing.assert_array_equal(renamed.advantages, plain.advantages)
    assert np.abs(merged.advantages - plain.advantages).max() > 0.1


@EXAMPLES
@given(SEEDS)
def test_grpo_unscored_completions_are_no_zeros(seed: int) -> None:
    """An unscored completion neither has an advantage nor moves its group's mean."""
    rows = random_rows(seed, groups=1, group_size=4) | {"rewards": [1.0, 0.0, 1.0, math.nan]}
    rows |= {"scored": [True, True, True, False], "token_rewards": [[0.0] * 8] * 4}
    rows["mask"] = [[False, True] + [False] * 6] * 3 + [[False] * 8]
    got = run(build(GRPOConfig()), rows)
    want = oracle.advantages([1.0, 0.0, 1.0], [0, 0, 0], [True] * 3, "std")
    np.testing.assert_allclose(got.advantages[:, 1], [*want, 0.0], rtol=1e-12)
    assert np.isfinite(got.loss)

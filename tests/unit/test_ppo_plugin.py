"""PPO's options, what it asks for, and steps worked out by hand."""

import math
import subprocess
import sys

import pytest
import torch
from reference.token_batches import CONTEXT, Layout, random_rows, run, tensors

from reasonrl import AlgorithmContext, Needs, SamplingParams
from reasonrl_ppo.algorithm import PPO
from reasonrl_ppo.config import KLConfig, PPOConfig, needs
from reasonrl_ppo.plugin import reasonrl_algorithms


def build(config: PPOConfig) -> PPO:
    return PPO(config, AlgorithmContext(sampling=SamplingParams(), group_size=1, total_steps=10))


def hand_rows(**changes: list) -> dict:
    """One completion of two tokens with reward 1 after one prompt token."""
    rows = {
        "mask": [[False, True, True]],
        "scored": [True],
        "rewards": [1.0],
        "groups": [0],
        "truncated": [False],
        "logprobs": [[9.0, -1.0, -1.0]],
        "old_logprobs": [[9.0, -1.0, -1.0]],
        "ref_logprobs": [[9.0, -1.5, -0.5]],
        "values": [[9.0, 0.5, 0.5]],
        "old_values": [[9.0, 0.5, 0.5]],
        "entropy": [[9.0, 0.7, 0.3]],
        "token_rewards": [[9.0, 0.0, 0.0]],
    }
    return rows | changes


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"clip_eps": 1.2}, r"clip_eps must be in \(0, 1\), got 1.2"),
        ({"clip_eps": math.nan}, r"clip_eps must be in \(0, 1\), got nan"),
        ({"clip_eps_high": 0.0}, "clip_eps_high must be > 0, got 0.0"),
        ({"value_clip": -1.0}, "value_clip must be > 0, or null, got -1.0"),
        ({"value_coef": 0.0}, "value_coef must be > 0, got 0.0"),
        ({"gamma": 1.1}, r"gamma must be in \[0, 1\], got 1.1"),
        ({"lam": -0.1}, r"lam must be in \[0, 1\], got -0.1"),
        ({"entropy_coef": -1.0}, "entropy_coef must be >= 0, got -1.0"),
    ],
)
def test_ppo_config_refuses(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PPOConfig(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"coef": -0.1}, "kl.coef must be >= 0, got -0.1"),
        ({"placement": "loss"}, "kl.estimator must be k2 or k3 when kl.placement is loss, got 'k1'"),
        ({"estimator": "k3"}, "kl.estimator must be k1 when kl.placement is reward, got 'k3'"),
        ({"placement": "both"}, "kl.placement must be one of reward, loss, got 'both'"),
    ],
)
def test_ppo_kl_config_refuses(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        KLConfig(**options)


def test_ppo_needs_follow_the_config() -> None:
    assert needs(PPOConfig()) == Needs(critic=True)
    in_reward = needs(PPOConfig(kl=KLConfig(coef=0.1)))
    assert in_reward == Needs(critic=True, reference=True, old_for_advantages=True)
    in_loss = needs(PPOConfig(kl=KLConfig(coef=0.1, estimator="k3", placement="loss"), entropy_coef=0.1))
    assert in_loss == Needs(critic=True, reference=True, entropy="grad")


def test_ppo_registers_without_torch() -> None:
    code = "import reasonrl_ppo.plugin as p, sys; p.reasonrl_algorithms(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_ppo_declares_every_metric_it_emits() -> None:
    (spec,) = reasonrl_algorithms()
    declared = {definition.key for definition in spec.metrics}
    emitted: set[str] = set()
    for kl in (KLConfig(coef=0.1, target=0.1), KLConfig(coef=0.1, estimator="k3", placement="loss")):
        emitted |= run(build(PPOConfig(kl=kl)), random_rows(0)).metrics.keys()
    assert emitted == declared


def test_ppo_step_by_hand() -> None:
    # No whitening, gamma = lam = 1: A = 1 - 0.5 on both tokens. First pass: r = 1.
    # loss = -0.5 + value_coef * 1/2 * 0.25 - entropy_coef * mean(0.7, 0.3) = -0.5 + 0.25 - 0.05
    config = PPOConfig(whiten=False, value_coef=2.0, entropy_coef=0.1)
    got = run(build(config), hand_rows())
    assert got.advantages.tolist() == [[0.0, 0.5, 0.5]]
    assert got.returns.tolist() == [[0.0, 1.0, 1.0]]
    assert got.loss == pytest.approx(-0.3)
    assert got.metrics["loss/policy"] == pytest.approx(-0.5)
    assert got.metrics["loss/value"] == pytest.approx(0.125)
    assert got.metrics["policy/entropy"] == pytest.approx(0.5)
    assert got.metrics["critic/values"] == pytest.approx(0.5)
    assert got.metrics["critic/returns"] == pytest.approx(1.0)
    assert "critic/explained_variance" not in got.metrics  # all returns are equal


def test_ppo_kl_in_the_reward_by_hand() -> None:
    # k1 of old against reference: +0.5, -0.5; coef 0.2: rewards -0.1, 1 + 0.1; returns 1.0, 1.1.
    config = PPOConfig(whiten=False, kl=KLConfig(coef=0.2))
    got = run(build(config), hand_rows())
    assert got.returns[0].tolist() == pytest.approx([0.0, 1.0, 1.1])
    assert got.metrics["policy/kl_ref_k1"] == pytest.approx(0.0)
    # Var(returns) = 0.05^2, Var(returns - 0.5) the same: a constant explains nothing.
    assert got.metrics["critic/explained_variance"] == pytest.approx(0.0)


def test_ppo_token_rewards_join_the_terminal_one() -> None:
    got = run(build(PPOConfig(whiten=False)), hand_rows(token_rewards=[[9.0, 0.25, 0.5]]))
    assert got.returns.tolist() == [[0.0, 1.75, 1.5]]


def test_ppo_value_clip_by_hand() -> None:
    # Old 0.5, return 1. New 0.9 with clip 0.1: bounded to 0.6, error 0.16 > 0.01: no gradient.
    # New 0.2: bounded to 0.4, error 0.36 < 0.64: the plain error counts, gradient (0.2 - 1) / 2 tokens.
    config = PPOConfig(whiten=False, value_clip=0.1)
    got = run(build(config), hand_rows(values=[[9.0, 0.9, 0.2]]))
    assert got.metrics["loss/value"] == pytest.approx((0.16 + 0.64) / 4)
    assert got.metrics["critic/value_clip_frac"] == pytest.approx(0.5)
    assert got.gradients["values"].tolist() == [[0.0, 0.0, pytest.approx(-0.4)]]


def test_ppo_value_clip_measures_the_distance_to_the_old_value() -> None:
    # Old -0.5, return 1. New 0.4 with clip 0.5: bounded to 0.0, error 1 > 0.36, though |0.4 + (-0.5)| is small.
    rows = hand_rows(values=[[9.0, 0.4, 0.4]], old_values=[[9.0, -0.5, -0.5]])
    got = run(build(PPOConfig(whiten=False, value_clip=0.5)), rows)
    assert got.metrics["loss/value"] == pytest.approx(0.5)
    assert got.metrics["critic/value_clip_frac"] == 1.0


def test_ppo_explained_variance_of_a_perfect_critic_is_1() -> None:
    rows = hand_rows(token_rewards=[[9.0, 0.5, 0.0]], old_values=[[9.0, 1.5, 1.0]])  # returns 1.5, 1.0
    assert run(build(PPOConfig()), rows).metrics["critic/explained_variance"] == pytest.approx(1.0)


def test_ppo_says_which_need_is_missing() -> None:
    batch, evals, _ = tensors(hand_rows(), Layout(), [0])
    object.__setattr__(evals, "values", None)
    with pytest.raises(
        ValueError, match=r"the algorithm needs values, got None; does AlgorithmSpec.needs declare it\?"
    ):
        build(PPOConfig()).compute_advantages(batch, evals, CONTEXT)


def test_ppo_dummy_micro_batch_adds_nothing() -> None:
    rows = random_rows(3)
    empty = {**rows, "mask": [[False] * 8] * 6, "scored": [False] * 6}
    got = run(build(PPOConfig(entropy_coef=0.1)), empty, Layout(dtype=torch.float32, junk=math.nan))
    assert got.loss == 0.0
    assert all((gradient == 0).all() for gradient in got.gradients.values())
    assert got.metrics == {"policy/ratio_max": 0.0}


def test_ppo_value_clip_frac_counts_no_rounding() -> None:
    """old + (V - old) is not V to the last bit in float32; far inside the bound, nothing is clipped."""
    for seed in range(20):
        got = run(build(PPOConfig(value_clip=100.0)), random_rows(seed), Layout(dtype=torch.float32))
        assert got.metrics["critic/value_clip_frac"] == 0.0

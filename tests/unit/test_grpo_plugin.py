"""GRPO's options, what it asks for, and steps worked out by hand."""

import math
import subprocess
import sys

import pytest
from reference.token_batches import random_rows, run

from reasonrl import AlgorithmContext, Needs, SamplingParams
from reasonrl_critic_free.algorithm import GRPO
from reasonrl_critic_free.config import GRPOConfig, KLConfig, needs
from reasonrl_critic_free.plugin import reasonrl_algorithms


def build(config: GRPOConfig) -> GRPO:
    return GRPO(config, AlgorithmContext(sampling=SamplingParams(), group_size=2, total_steps=10))


def hand_rows() -> dict:
    """One group: a completion of one token with reward 1, one of two tokens with reward 0."""
    per_token = [[9.0, -1.0, 9.0], [9.0, -1.0, -2.0]]
    return {
        "mask": [[False, True, False], [False, True, True]],
        "scored": [True, True],
        "rewards": [1.0, 0.0],
        "groups": [3, 3],
        "truncated": [False, False],
        "logprobs": per_token,
        "old_logprobs": per_token,
        "ref_logprobs": [[9.0, -1.0, 9.0], [9.0, -1.0, -1.5]],
        "values": per_token,
        "old_values": per_token,
        "entropy": [[9.0, 0.5, 9.0], [9.0, 1.0, 0.0]],
        "token_rewards": [[9.0, 0.0, 9.0], [9.0, 0.0, 0.0]],
    }


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"clip_eps": 0.0}, r"clip_eps must be in \(0, 1\), got 0.0"),
        ({"clip_eps_high": -0.1}, "clip_eps_high must be > 0, got -0.1"),
        ({"entropy_coef": -1.0}, "entropy_coef must be >= 0, got -1.0"),
        ({"normalization": "row"}, "normalization must be one of token, sequence, got 'row'"),
        ({"scale": "batch"}, "scale must be one of std, none, got 'batch'"),
    ],
)
def test_grpo_config_refuses(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GRPOConfig(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"coef": -1.0}, "kl.coef must be >= 0, got -1.0"),
        ({"placement": "both"}, "kl.placement must be one of reward, loss, got 'both'"),
        ({"estimator": "k1"}, "kl.estimator must be k2 or k3 when kl.placement is loss, got 'k1'"),
        ({"placement": "reward"}, "kl.estimator must be k1 when kl.placement is reward, got 'k3'"),
        (
            {"placement": "reward", "estimator": "k1", "weighted": True},
            "kl.weighted must be false when kl.placement is reward",
        ),
    ],
)
def test_kl_config_refuses(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        KLConfig(**options)


def test_grpo_needs_follow_the_config() -> None:
    assert needs(GRPOConfig()) == Needs(min_group_size=2)
    assert needs(GRPOConfig(kl=KLConfig(coef=0.1), entropy_coef=0.1)) == Needs(
        reference=True, entropy="grad", min_group_size=2
    )


def test_grpo_registers_without_torch() -> None:
    code = "import reasonrl_critic_free.plugin as p, sys; p.reasonrl_algorithms(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_grpo_declares_every_metric_it_emits() -> None:
    spec = next(spec for spec in reasonrl_algorithms() if spec.name == "grpo")
    in_reward = KLConfig(coef=0.1, placement="reward", estimator="k1", target=0.1)
    ways = (KLConfig(coef=0.1), in_reward)
    emitted = {key for kl in ways for key in run(build(GRPOConfig(kl=kl)), random_rows(0)).metrics}
    assert emitted == {definition.key for definition in spec.metrics}


def test_grpo_normalizations_by_hand() -> None:
    # Advantages +1 and -1, ratio 1. Tokens: (-1 + 1 + 1) / 3. Completions: (-1 + (1 + 1) / 2) / 2 = 0.
    token = run(build(GRPOConfig()), hand_rows())
    sequence = run(build(GRPOConfig(normalization="sequence")), hand_rows())
    assert token.loss == pytest.approx(1 / 3)
    assert sequence.loss == pytest.approx(0.0)
    assert token.gradients["logprobs"][1].tolist() == [0.0, pytest.approx(1 / 3), pytest.approx(1 / 3)]
    assert sequence.gradients["logprobs"][1].tolist() == [0.0, 0.25, 0.25]
    assert token.metrics["loss/policy"] == pytest.approx(token.loss)
    assert sequence.metrics["loss/policy"] == pytest.approx(sequence.loss)


def test_grpo_kl_and_entropy_by_hand() -> None:
    # k2 of the last token: (-2 + 1.5)^2 / 2 = 0.125; entropies 0.5, 1, 0.
    config = GRPOConfig(scale="none", kl=KLConfig(coef=0.4, estimator="k2"), entropy_coef=0.2)
    got = run(build(config), hand_rows())
    # Advantages +0.5, -0.5, -0.5.
    assert got.loss == pytest.approx((0.5 + 0.4 * 0.125 - 0.2 * 1.5) / 3)
    assert got.metrics["policy/entropy"] == pytest.approx(0.5)


def test_grpo_token_rewards_count_to_the_completion() -> None:
    rows = hand_rows() | {"rewards": [0.0, 0.0], "token_rewards": [[9.0, 0.0, 9.0], [9.0, 0.25, 0.75]]}
    got = run(build(GRPOConfig()), rows)
    assert got.advantages.tolist() == [[0.0, -1.0, 0.0], [0.0, 1.0, 1.0]]


def test_grpo_flat_groups_are_dropped_only_when_nothing_else_pulls() -> None:
    rows = hand_rows() | {"rewards": [1.0, 1.0]}
    assert run(build(GRPOConfig()), rows).contributes.tolist() == [False, False]
    assert run(build(GRPOConfig(kl=KLConfig(coef=0.1))), rows).contributes.tolist() == [True, True]
    assert run(build(GRPOConfig(entropy_coef=0.1)), rows).contributes.tolist() == [True, True]


def test_grpo_metrics_by_hand() -> None:
    # One token of three moved: new -1.5, old and reference -1.0. Its ratio exp(-0.5) = 0.61 is below 0.8, its
    # advantage is -1, so it is clipped. KL(old || new): x = 0.5. KL(new || reference): x = -0.5.
    rows = hand_rows()
    rows |= {"ref_logprobs": rows["logprobs"], "logprobs": [[9.0, -1.0, 9.0], [9.0, -1.5, -2.0]]}
    got = run(build(GRPOConfig(kl=KLConfig(coef=0.1))), rows).metrics
    assert got["policy/clip_frac"] == pytest.approx(1 / 3)
    assert got["policy/ratio_max"] == pytest.approx(1.0)
    assert got["policy/kl_old_k3"] == pytest.approx((math.exp(-0.5) - 1 + 0.5) / 3)
    assert got["policy/kl_ref_k3"] == pytest.approx((math.exp(0.5) - 1 - 0.5) / 3)
    # Completions: -1 and the mean of a clipped 0.8 and 1: (-1 + 0.9) / 2.
    sequence = run(build(GRPOConfig(normalization="sequence")), rows)
    assert sequence.metrics["loss/policy"] == pytest.approx(-0.05)
    assert sequence.loss == pytest.approx(-0.05)

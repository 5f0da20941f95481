"""Options of PPO and GRPO, seen in the metrics and in what is learned."""

from itertools import pairwise

import numpy as np
from stranger.keys.registry import effect
from stranger.lab import Lab, distance

PPO, GRPO = ("algorithm.ppo",), ("algorithm.grpo",)
BOTH = PPO + GRPO
RECIPE = {"algorithm.ppo": "ppo", "algorithm.grpo": "train"}
TWICE = ("trainer.update_epochs=3", "optimizer.learning_rate=3e-3")
"""Several passes over a batch, so that the policy leaves the one that sampled."""
UNEVEN = ("sampling.stop=[a, e, i, o, u, A, E, I, O, U]", "sampling.max_completion_tokens=24")
"""Completions of different lengths."""


@effect("clip_eps", of=BOTH)
def clip_eps(lab: Lab, kind: str) -> None:
    """A narrow clip takes more gradients away."""
    fractions = [
        max(lab.run(RECIPE[kind], *TWICE, f"algorithm.clip_eps={eps}").values("policy/clip_frac"))
        for eps in (0.001, 0.5)
    ]
    assert fractions[0] > fractions[1]


@effect("clip_eps_high", of=BOTH)
def clip_eps_high(lab: Lab, kind: str) -> None:
    """The upper side alone: null is clip_eps."""
    high = [
        max(lab.run(RECIPE[kind], *TWICE, f"algorithm.clip_eps_high={eps}").values("policy/clip_frac"))
        for eps in (0.001, 0.5)
    ]
    assert high[0] > high[1]
    same = [lab.run(RECIPE[kind], *TWICE, f"algorithm.clip_eps_high={eps}") for eps in ("null", 0.2)]
    assert distance(same[0].weights(), same[1].weights()) == 0.0


@effect("entropy_coef", of=BOTH)
def entropy_coef(lab: Lab, kind: str) -> None:
    """The loss of the first step is lower by the bonus, and entropy ends higher."""
    plain, curious = lab.run(RECIPE[kind]), lab.run(RECIPE[kind], "algorithm.entropy_coef=2.0")
    bonus = plain.values("loss/total")[0] - curious.values("loss/total")[0]
    assert np.isclose(bonus, 2.0 * curious.values("policy/entropy")[0], rtol=1e-4)
    assert curious.values("policy/entropy")[2] > plain.values("policy/entropy")[2]


@effect("value_clip", of=PPO)
def value_clip(lab: Lab, kind: str) -> None:
    fast = (*TWICE, "critic.learning_rate=1e-2")
    tight, loose, off = (lab.run("ppo", *fast, f"algorithm.value_clip={v}") for v in (1e-4, 10.0, "null"))
    assert tight.values("critic/value_clip_frac")[0] > loose.values("critic/value_clip_frac")[0] == 0.0
    assert off.values("critic/value_clip_frac") == [None] * 3


@effect("value_coef", of=PPO)
def value_coef(lab: Lab, kind: str) -> None:
    """The gradient of the critic's head is its alone."""
    one, ten = lab.run("ppo"), lab.run("ppo", "algorithm.value_coef=10.0")
    assert np.isclose(ten.values("critic/grad_norm")[0], 10 * one.values("critic/grad_norm")[0], rtol=1e-4)


@effect("gamma", "lam", of=PPO)
def gamma_and_lam(lab: Lab, kind: str) -> None:
    """With values of 0, as at first, either discounts the reward of the last token."""
    whole = lab.run("ppo").values("critic/returns")[0]
    discounted = [lab.run("ppo", f"algorithm.{key}=0.5").values("critic/returns")[0] for key in ("gamma", "lam")]
    assert whole > 0.0
    assert np.isclose(discounted[0], discounted[1], rtol=1e-5)
    assert discounted[0] < 0.5 * whole


@effect("whiten", of=PPO)
def whiten(lab: Lab, kind: str) -> None:
    """Advantages of mean 0; without it the first ones are the returns."""
    white, raw = lab.run("ppo"), lab.run("ppo", "algorithm.whiten=false")
    assert abs(white.values("loss/policy")[0]) < 1e-4
    assert np.isclose(-raw.values("loss/policy")[0], raw.values("critic/returns")[0], rtol=1e-4)


@effect("kl.coef", of=PPO)
def kl_coef_ppo(lab: Lab, kind: str) -> None:
    """A strong penalty keeps the policy near the reference."""
    free, bound = (lab.run("ppo", *TWICE, f"algorithm.kl.coef={c}") for c in (1e-6, 10.0))
    assert bound.values("policy/kl_ref_k1")[2] < free.values("policy/kl_ref_k1")[2]
    assert "policy/kl_ref_k1" not in lab.run("ppo", *TWICE).metrics[0]


@effect("kl.placement", "kl.estimator", of=PPO)
def kl_placement(lab: Lab, kind: str) -> None:
    """In the reward, or in the loss with one of two estimators: three ways to learn, from the second step on."""
    ways = [
        lab.run("ppo", *TWICE, f"algorithm.kl={{coef: 1.0, placement: {placement}, estimator: {estimator}}}")
        for placement, estimator in (("reward", "k1"), ("loss", "k2"), ("loss", "k3"))
    ]
    assert [("policy/kl_ref_k1" in way.metrics[1]) for way in ways] == [True, False, False]
    assert all(distance(a.weights(), b.weights()) > 1e-4 for a, b in pairwise(ways))


@effect("normalization", of=GRPO)
def normalization(lab: Lab, kind: str) -> None:
    """Advantages of a group add up to 0 over completions, and over tokens only if all are of one length."""
    token, sequence = (lab.run("train", *UNEVEN, f"algorithm.normalization={n}") for n in ("token", "sequence"))
    assert abs(sequence.values("loss/policy")[0]) < 1e-5
    assert abs(token.values("loss/policy")[0]) > 1e-3


@effect("scale", of=GRPO)
def scale(lab: Lab, kind: str) -> None:
    """Rewards within 0 and 1 have a standard deviation below 1, and dividing by it makes gradients longer."""
    divided, plain = lab.run("train"), lab.run("train", "algorithm.scale=none")
    assert divided.values("optim/grad_norm")[0] > 1.5 * plain.values("optim/grad_norm")[0]


@effect("kl.coef", of=GRPO)
def kl_coef_grpo(lab: Lab, kind: str) -> None:
    free, bound = (lab.run("train", *TWICE, f"algorithm.kl.coef={c}") for c in (1e-6, 10.0))
    assert bound.values("policy/kl_ref_k3")[2] < free.values("policy/kl_ref_k3")[2]
    assert "policy/kl_ref_k3" not in lab.run("train", *TWICE).metrics[0]


@effect("kl.estimator", of=GRPO)
def kl_estimator(lab: Lab, kind: str) -> None:
    ways = [lab.run("train", *TWICE, "algorithm.kl.coef=1.0", f"algorithm.kl.estimator={k}") for k in ("k2", "k3")]
    assert distance(ways[0].weights(), ways[1].weights()) > 1e-4

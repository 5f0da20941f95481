"""Options of PPO and GRPO, seen in the metrics and in what is learned."""

from itertools import pairwise

import numpy as np
from stranger.keys.registry import effect
from stranger.lab import Lab, Run, distance

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


@effect("critic_lam", of=PPO)
def critic_lam(lab: Lab, kind: str) -> None:
    """With values of 0, as at first, the critic's targets are discounted, and the policy's advantages are not."""
    one, half = lab.run("ppo"), lab.run("ppo", "algorithm.critic_lam=0.5")
    assert half.values("critic/returns")[0] < 0.5 * one.values("critic/returns")[0]
    assert np.isclose(half.values("optim/grad_norm")[0], one.values("optim/grad_norm")[0], rtol=1e-4)


@effect("lam_alpha", of=PPO)
def lam_alpha(lab: Lab, kind: str) -> None:
    """Completions have 8 tokens: 1 - 1 / (0.25 * 8) is a lam of 0.5."""
    alpha, half = lab.run("ppo", "algorithm.lam_alpha=0.25"), lab.run("ppo", "algorithm.lam=0.5")
    assert np.isclose(alpha.values("critic/returns")[0], half.values("critic/returns")[0], rtol=1e-4)
    assert alpha.values("critic/returns")[0] < 0.5 * lab.run("ppo").values("critic/returns")[0]


@effect("dual_clip", of=PPO)
def dual_clip(lab: Lab, kind: str) -> None:
    """A bound just over 1 takes gradients away that the first clip leaves to negative advantages."""
    fractions = [
        max(lab.run("ppo", *TWICE, f"algorithm.dual_clip={bound}").values("policy/clip_frac"))
        for bound in (1.001, "null")
    ]
    assert fractions[0] > fractions[1]


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


@effect("kl.target", "kl.horizon", of=BOTH)
def kl_target(lab: Lab, kind: str) -> None:
    """A KL far below the target takes 20% / horizon off the coefficient in a step, one far above adds as much."""
    kl = "coef: 1.0, placement: reward, estimator: k1"
    ways = [
        lab.run(RECIPE[kind], *TWICE, f"algorithm.kl={{{kl}, {more}}}")
        for more in ("target: 1000.0", "target: 1000.0, horizon: 2.0", "target: 1.0e-9, horizon: 2.0", "target: null")
    ]
    assert np.allclose(ways[0].values("policy/kl_coef"), [1.0, 0.98, 0.98**2])
    assert np.allclose(ways[1].values("policy/kl_coef"), [1.0, 0.9, 0.81])
    assert ways[2].values("policy/kl_coef")[2] in (1.1 * 0.9, 0.9 * 1.1)  # before the first update the KL is 0
    assert ways[3].values("policy/kl_coef") == [None] * 3
    assert distance(ways[1].weights(), ways[3].weights()) > 0.0


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


@effect("kl.placement", of=GRPO)
def kl_placement_grpo(lab: Lab, kind: str) -> None:
    """A penalty in the reward is seen in its own metric, and no more in the loss."""
    inside = lab.run("train", *TWICE, "algorithm.kl={coef: 1.0, placement: reward, estimator: k1}")
    outside = lab.run("train", *TWICE, "algorithm.kl={coef: 1.0}")
    assert ["policy/kl_ref_k1" in run.metrics[1] for run in (inside, outside)] == [True, False]
    assert distance(inside.weights(), outside.weights()) > 1e-4


@effect("kl.weighted", of=GRPO)
def kl_weighted(lab: Lab, kind: str) -> None:
    ways = [lab.run("train", *TWICE, f"algorithm.kl={{coef: 1.0, weighted: {w}}}") for w in ("false", "true")]
    assert distance(ways[0].weights(), ways[1].weights()) > 1e-5


def of_algorithm(lab: Lab, name: str, *options: str) -> Run:
    judged = ("rewards={mine: {path: judged.py:score}}",)  # about half are correct, so that dapo keeps most groups
    return lab.run("train", *TWICE, *judged, f"algorithm={{{', '.join((f'name: {name}', *options))}}}")


def differ(lab: Lab, name: str, *values: str) -> list[Run]:
    """Two runs that learn different weights."""
    runs = [of_algorithm(lab, name, value) for value in values]
    assert distance(runs[0].weights(), runs[1].weights()) > 1e-6
    return runs


@effect("length", of=("algorithm.dr_grpo",))
def length(lab: Lab, kind: str) -> None:
    """The gradient is divided by it; null is the token limit, 8 here."""
    limit, eight, sixteen = (of_algorithm(lab, "dr_grpo", f"length: {n}") for n in ("null", 8, 16))
    assert distance(limit.weights(), eight.weights()) == 0.0
    norms = [run.values("optim/grad_norm")[0] for run in (eight, sixteen)]
    assert np.isclose(norms[0], 2 * norms[1], rtol=1e-4)


@effect("clip_eps_high", of=("algorithm.dapo",))
def dapo_clip(lab: Lab, kind: str) -> None:
    tight, loose = (of_algorithm(lab, "dapo", f"clip_eps_high: {eps}") for eps in (0.001, 0.5))
    assert max(tight.values("policy/clip_frac")) > max(loose.values("policy/clip_frac"))


def accuracies(run: Run) -> set[float]:
    """Of the groups that were trained on."""
    rows = [row for step in (1, 2, 3) for row in run.transcripts(step)]
    groups = {row["problem_id"]: [r["correct"] for r in rows if r["problem_id"] == row["problem_id"]] for row in rows}
    return {sum(verdicts) / len(verdicts) for verdicts in groups.values()}


@effect("min_accuracy", "max_accuracy", of=("algorithm.dapo",))
def accuracy_band(lab: Lab, kind: str) -> None:
    """Only groups within it are trained on, and those that a narrower band drops are there without it."""
    found = [accuracies(of_algorithm(lab, "dapo", *o)) for o in ((), ("min_accuracy: 0.3",), ("max_accuracy: 0.4",))]
    assert [min(accuracy) for accuracy in found] == [0.25, 0.5, 0.25], found
    assert max(found[0]) >= 0.5 > max(found[2]), found


@effect("overlong_buffer", "overlong_penalty", of=("algorithm.dapo",))
def overlong(lab: Lab, kind: str) -> None:
    """With completions of different lengths, what is penalized is learned otherwise, and the harder the more."""
    options = ("overlong_buffer: 0", "overlong_buffer: 20", "overlong_buffer: 20, overlong_penalty: 5.0")
    judged = "rewards={mine: {path: judged.py:score}}"
    runs = [lab.run("train", *UNEVEN, *TWICE, judged, f"algorithm={{name: dapo, {o}}}") for o in options]
    assert all(distance(a.weights(), b.weights()) > 1e-6 for a, b in pairwise(runs))


@effect("overlong_filter", of=("algorithm.dapo",))
def overlong_filter(lab: Lab, kind: str) -> None:
    """All completions of the tiny model end at the limit, so none is left to learn from."""
    runs = [of_algorithm(lab, "dapo", f"overlong_filter: {value}") for value in ("false", "true")]
    assert runs[0].values("batch/dropped_frac")[0] < runs[1].values("batch/dropped_frac")[0]


@effect("clip_eps", "clip_eps_high", of=("algorithm.gspo",))
def gspo_clip(lab: Lab, kind: str) -> None:
    for key in ("clip_eps", "clip_eps_high"):
        tight, loose = (of_algorithm(lab, "gspo", f"{key}: {bound}") for bound in ("1.0e-5", 0.5))
        assert max(tight.values("policy/clip_frac")) > max(loose.values("policy/clip_frac")), key


@effect("ratio_max", of=("algorithm.cispo",))
def ratio_max(lab: Lab, kind: str) -> None:
    tight, loose = differ(lab, "cispo", "ratio_max: 1.0", "ratio_max: 5.0")
    assert max(tight.values("policy/clip_frac")) > max(loose.values("policy/clip_frac"))


@effect("temperature_pos", "temperature_neg", of=("algorithm.sapo",))
def temperatures(lab: Lab, kind: str) -> None:
    differ(lab, "sapo", "temperature_pos: 1.0", "temperature_pos: 20.0")
    differ(lab, "sapo", "temperature_neg: 1.05", "temperature_neg: 20.0")


@effect("max_change", of=("algorithm.dppo",))
def max_change(lab: Lab, kind: str) -> None:
    tight, loose = differ(lab, "dppo", "max_change: 0.0001", "max_change: 0.5")
    assert max(tight.values("policy/clip_frac")) > max(loose.values("policy/clip_frac"))


@effect("kl.estimator", of=GRPO)
def kl_estimator(lab: Lab, kind: str) -> None:
    ways = [lab.run("train", *TWICE, "algorithm.kl.coef=1.0", f"algorithm.kl.estimator={k}") for k in ("k2", "k3")]
    assert distance(ways[0].weights(), ways[1].weights()) > 1e-4

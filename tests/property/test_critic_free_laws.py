"""Algorithms without a critic: agreement with the oracles, and what loss and gradients must not depend on."""

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import critic_free as oracle
from reference.token_batches import Layout, assert_same, on_first_pass, random_rows, run

from reasonrl import AlgorithmContext, SamplingParams
from reasonrl_critic_free import algorithm as algorithms
from reasonrl_critic_free import config as configs
from reasonrl_critic_free.config import KLConfig
from reasonrl_critic_free.plugin import reasonrl_algorithms

EXAMPLES = settings(max_examples=12)
SEEDS = st.integers(0, 10_000)
LIMIT = 5
WEIGHTS = {"main": 1.0, "extra": 0.5}
CLIP = {"low": 0.2, "high": 0.2}
IN_REWARD = KLConfig(coef=0.1, placement="reward", estimator="k1")


@dataclass(frozen=True)
class Case:
    """An algorithm with options, and the same options in the oracle's words."""

    name: str
    config: Any
    options: dict[str, Any] = field(default_factory=dict)

    def build(self) -> Any:
        spec = next(spec for spec in reasonrl_algorithms() if spec.name == self.name)
        context = AlgorithmContext(
            sampling=SamplingParams(max_completion_tokens=LIMIT), group_size=3, total_steps=10, reward_weights=WEIGHTS
        )
        return getattr(algorithms, str(spec.factory).rpartition(":")[2])(self.config, context)

    def expected(self, rows: dict[str, Any]) -> tuple[Any, Any]:
        adv = oracle.advantages(self.name, rows, {"limit": LIMIT, "weights": WEIGHTS, **self.options})
        return oracle.loss(self.name, rows, adv, self.options), adv


CASES = {
    "dr_grpo": Case("dr_grpo", configs.DrGRPOConfig(), {**CLIP, "scale": "none", "mean": "constant", "length": LIMIT}),
    "dr_grpo_length": Case(
        "dr_grpo",
        configs.DrGRPOConfig(length=9, kl=IN_REWARD),
        {**CLIP, "scale": "none", "mean": "constant", "length": 9, "reward_kl": 0.1},
    ),
    "dapo": Case("dapo", configs.DAPOConfig(), {"low": 0.2, "high": 0.28, "mean": "token"}),
    "dapo_overlong": Case(
        "dapo",
        configs.DAPOConfig(overlong_buffer=3, overlong_penalty=0.7),
        {"low": 0.2, "high": 0.28, "mean": "token", "buffer": 3, "penalty": 0.7},
    ),
    "dapo_filter": Case(
        "dapo",
        configs.DAPOConfig(overlong_filter=True, entropy_coef=0.1),
        {"low": 0.2, "high": 0.28, "mean": "token", "filter": True, "entropy": 0.1},
    ),
    "rloo": Case(
        "rloo",
        configs.RLOOConfig(kl=IN_REWARD),
        {"ratio_max": math.inf, "scale": "leave_one_out", "mean": "sum", "reward_kl": 0.1},
    ),
    "reinforce_pp": Case(
        "reinforce_pp", configs.ReinforcePPConfig(kl=IN_REWARD), {**CLIP, "mean": "token", "reward_kl": 0.1}
    ),
    "reinforce_pp_baseline": Case(
        "reinforce_pp_baseline",
        configs.ReinforcePPBaselineConfig(kl=KLConfig(coef=0.2, estimator="k2", weighted=True)),
        {**CLIP, "scale": "none", "mean": "token", "loss_kl": 0.2, "estimator": "k2", "weighted": True},
    ),
    "gspo": Case(
        "gspo",
        configs.GSPOConfig(clip_eps=0.1, clip_eps_high=0.15),
        {"low": 0.1, "high": 0.15, "mean": "sequence"},
    ),
    "cispo": Case("cispo", configs.CISPOConfig(ratio_max=1.2), {"ratio_max": 1.2, "mean": "token"}),
    "max_rl": Case("max_rl", configs.MaxRLConfig(), {**CLIP, "scale": "mean", "mean": "token"}),
    "gdpo": Case("gdpo", configs.GDPOConfig(), {**CLIP, "mean": "token"}),
    "gdpo_kl": Case("gdpo", configs.GDPOConfig(kl=IN_REWARD), {**CLIP, "mean": "token", "reward_kl": 0.1}),
    "reinforce_pp_baseline_kl": Case(
        "reinforce_pp_baseline",
        configs.ReinforcePPBaselineConfig(kl=IN_REWARD),
        {**CLIP, "scale": "none", "mean": "token", "reward_kl": 0.1},
    ),
    "sapo": Case("sapo", configs.SAPOConfig(), {"tau_pos": 1.0, "tau_neg": 1.05, "mean": "sequence"}),
    "dppo": Case("dppo", configs.DPPOConfig(max_change=0.05), {"max_change": 0.05, "mean": "token"}),
    "dppo_kl": Case(
        "dppo",
        configs.DPPOConfig(kl=KLConfig(coef=0.3, weighted=True)),
        {"max_change": 0.15, "mean": "token", "loss_kl": 0.3, "estimator": "k3", "weighted": True},
    ),
}
EVERY = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


def test_every_algorithm_has_a_case() -> None:
    assert {spec.name for spec in reasonrl_algorithms()} == {case.name for case in CASES.values()} | {"grpo"}


@EVERY
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-4)], ids=str)
@EXAMPLES
@given(seed=SEEDS)
def test_it_agrees_with_the_oracle(case: Case, dtype: torch.dtype, tolerance: float, seed: int) -> None:
    rows = random_rows(seed)
    got = run(case.build(), rows, Layout(dtype=dtype))
    want, adv = case.expected(rows)
    close = {"rtol": tolerance, "atol": tolerance}
    np.testing.assert_allclose(got.advantages, np.array(adv), **close)
    np.testing.assert_allclose(got.loss, want.loss, **close)
    np.testing.assert_allclose(got.gradients["logprobs"], want.logprobs, **close)
    np.testing.assert_allclose(got.gradients["entropy"], want.entropy, **close)


@EXAMPLES
@given(seed=SEEDS)
def test_the_metric_of_rloo_is_its_loss(seed: int) -> None:
    found = run(Case("rloo", configs.RLOOConfig(), {}).build(), random_rows(seed))
    assert found.metrics["loss/policy"] == pytest.approx(float(found.loss), rel=1e-9, abs=1e-12)


@EVERY
@EXAMPLES
@given(seed=SEEDS, data=st.data())
def test_layout_and_split_do_not_matter(case: Case, seed: int, data: st.DataObject) -> None:
    rows = random_rows(seed)
    other = Layout(
        order=tuple(data.draw(st.permutations(range(6)))),
        splits=data.draw(st.sampled_from([(1,) * 6, (2, 4), (3, 3), (5, 1)])),
        extra_columns=data.draw(st.integers(0, 3)),
        junk=data.draw(st.sampled_from([0.0, 100.0, math.nan, math.inf, -math.inf])),
    )
    assert_same(run(case.build(), rows, other), run(case.build(), rows), rtol=1e-9, atol=1e-12)


@EVERY
@EXAMPLES
@given(seed=SEEDS)
def test_constant_rewards_have_no_policy_gradient(case: Case, seed: int) -> None:
    """Nothing was better than anything else; ratios, KL terms and lengths have their own gradients."""
    rows = random_rows(seed)
    rows |= {"token_rewards": [[0.0] * len(m) for m in rows["mask"]], "ref_logprobs": rows["old_logprobs"]}
    rows |= {"rewards": [0.7] * 6, "components": [{"main": 0.7, "extra": 0.0}] * 6}
    got = run(case.build(), rows)
    if not case.options.get("buffer"):
        assert not got.advantages.any()


@EVERY
@EXAMPLES
@given(seed=SEEDS)
def test_unscored_siblings_leave_the_statistics(case: Case, seed: int) -> None:
    """Whatever their rewards say, NaN included."""
    rows = random_rows(seed)
    hidden = [math.nan if not s else r for s, r in zip(rows["scored"], rows["rewards"], strict=True)]
    parts = [
        given if s else dict.fromkeys(given, math.nan)
        for s, given in zip(rows["scored"], rows["components"], strict=True)
    ]
    assert_same(
        run(case.build(), {**rows, "rewards": hidden, "components": parts}),
        run(case.build(), rows),
        rtol=1e-9,
        atol=1e-12,
    )


@EVERY
@EXAMPLES
@given(seed=SEEDS)
def test_rows_that_do_not_contribute_have_no_gradient(case: Case, seed: int) -> None:
    got = run(case.build(), random_rows(seed))
    for gradient in got.gradients.values():
        assert (gradient[~got.contributes] == 0).all()


@EVERY
@EXAMPLES
@given(seed=SEEDS)
def test_the_first_pass_is_not_clipped(case: Case, seed: int) -> None:
    got = run(case.build(), on_first_pass(random_rows(seed)))
    assert got.metrics["policy/clip_frac"] == 0
    assert got.metrics["policy/ratio_max"] == 1

"""The plugin critic_free: every option matters, contradictions are refused, DAPO keeps groups within its band."""

from dataclasses import fields
from typing import Any

import numpy as np
import pytest
from reference.token_batches import Layout, random_rows, run, tensors

from reasonrl import AlgorithmContext, Problem, RewardOutput, RolloutGroup, RolloutRequest, SamplingParams, ScoredGroup
from reasonrl_critic_free import algorithm as algorithms
from reasonrl_critic_free import config as configs
from reasonrl_critic_free.config import KLConfig
from reasonrl_critic_free.plugin import reasonrl_algorithms

SPECS = {spec.name: spec for spec in reasonrl_algorithms()}
IN_REWARD = KLConfig(coef=1.0, placement="reward", estimator="k1")
OTHER_VALUES: dict[str, list[dict[str, Any]]] = {
    "kl": [{"kl": KLConfig(coef=1.0)}, {"kl": KLConfig(coef=1.0, weighted=True)}, {"kl": IN_REWARD}],
    "entropy_coef": [{"entropy_coef": 0.5}],
    "clip_eps": [{"clip_eps": 0.9}],
    "clip_eps_high": [{"clip_eps_high": 5.0}],
    "normalization": [{"normalization": "sequence"}],
    "scale": [{"scale": "none"}],
    "length": [{"length": 3}],
    "overlong_buffer": [{"overlong_buffer": 4}],
    "overlong_filter": [{"overlong_filter": True}],
    "ratio_max": [{"ratio_max": 1.01}],
    "temperature_pos": [{"temperature_pos": 9.0}],
    "temperature_neg": [{"temperature_neg": 9.0}],
    "max_change": [{"max_change": 0.01}],
}
ELSEWHERE = {"min_accuracy", "max_accuracy", "overlong_penalty"}
"""Tested below."""


def build(name: str, **options: Any) -> Any:
    spec = SPECS[name]
    context = AlgorithmContext(
        sampling=SamplingParams(max_completion_tokens=5), group_size=3, total_steps=10, reward_weights={"main": 1.0}
    )
    return getattr(algorithms, str(spec.factory).rpartition(":")[2])(spec.config(**options), context)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        (name, options)
        for name, spec in SPECS.items()
        for option in fields(spec.config)
        if option.name not in ELSEWHERE
        for options in OTHER_VALUES[option.name]
    ],
)
def test_every_option_of_every_algorithm_matters(name: str, options: dict[str, Any]) -> None:
    """Inherited ones too: on some batch, the gradient is another one."""
    for seed in range(5):
        rows = random_rows(seed)
        one, other = (run(build(name, **given), rows).gradients for given in ({}, options))
        if any(not np.allclose(one[leaf], other[leaf], rtol=1e-6) for leaf in one):
            return
    raise AssertionError(f"{name} ignores {options}")


@pytest.mark.parametrize(
    ("config", "options", "message"),
    [
        (configs.GRPOConfig, {"entropy_coef": -1.0}, "entropy_coef must be >= 0, got -1.0"),
        (configs.DrGRPOConfig, {"length": 0}, "length must be >= 1, got 0"),
        (configs.DAPOConfig, {"min_accuracy": 0.5, "max_accuracy": 0.5}, r"min_accuracy must be in \[0, max_acc"),
        (configs.DAPOConfig, {"max_accuracy": 1.5}, "max_accuracy must be at most 1, got 1.5"),
        (configs.DAPOConfig, {"overlong_buffer": -1}, "overlong_buffer must be >= 0, got -1"),
        (configs.DAPOConfig, {"overlong_penalty": 0.0}, "overlong_penalty must be > 0, got 0.0"),
        (
            configs.DAPOConfig,
            {"overlong_buffer": 4, "overlong_filter": True},
            "overlong_filter must be false with an overlong_buffer",
        ),
        (configs.GSPOConfig, {"clip_eps": 1.0}, r"clip_eps must be in \(0, 1\), got 1.0"),
        (configs.GSPOConfig, {"clip_eps_high": 0.0}, "clip_eps_high must be > 0, got 0.0"),
        (configs.CISPOConfig, {"ratio_max": 0.5}, "ratio_max must be >= 1, got 0.5"),
        (configs.SAPOConfig, {"temperature_pos": 0.0}, "temperature_pos must be > 0, got 0.0"),
        (configs.SAPOConfig, {"temperature_neg": 0.0}, "temperature_neg must be > 0, got 0.0"),
        (configs.DPPOConfig, {"max_change": 1.0}, r"max_change must be in \(0, 1\), got 1.0"),
    ],
)
def test_wrong_options_are_refused(config: type, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        config(**options)


def group(*verdicts: bool | None, totals: tuple[float | None, ...] = ()) -> ScoredGroup:
    request = RolloutRequest(
        problem=Problem(id="p", prompt="p"),
        prompt_ids=(1,),
        group_size=len(verdicts),
        sampling=SamplingParams(),
        seed=0,
    )
    given = totals or tuple(float(bool(v)) for v in verdicts)
    rewards = tuple(
        RewardOutput(total=total, components={"main": total}, correct=verdict)
        for verdict, total in zip(verdicts, given, strict=True)
    )
    return ScoredGroup(group=RolloutGroup(request=request, completions=()), rewards=rewards)


@pytest.mark.parametrize(
    ("given", "options", "kept"),
    [
        (group(True, True, False, False), {}, True),
        (group(True, True, True, True), {}, False),
        (group(False, False, False, False), {}, False),
        (group(True, False, False, False), {"min_accuracy": 0.25}, False),
        (group(True, True, True, False), {"max_accuracy": 0.75}, False),
        (group(True, True, True, False), {"max_accuracy": 0.8}, True),
        (group(True, True, None, totals=(1.0, 1.0, None)), {}, False),
        (group(True, False, None, totals=(1.0, 0.0, None)), {}, True),
        (group(True, None, totals=(0.3, 0.3)), {}, False),
        (group(None, None, totals=(0.3, 0.4)), {}, True),
        (group(None, None, totals=(0.3, 0.3)), {}, False),
        (group(None, None, totals=(None, None)), {}, False),
    ],
)
def test_dapo_keeps_groups_within_the_band(given: ScoredGroup, options: dict[str, Any], kept: bool) -> None:
    assert build("dapo", **options).keep(given) is kept


def test_the_overlong_penalty_grows_to_the_limit() -> None:
    """Completions of 1 to 5 tokens, a buffer of 4 before the limit of 5."""
    rows = random_rows(0, groups=1, group_size=5)
    rows |= {"mask": [[t < n for t in range(8)] for n in range(1, 6)], "scored": [True] * 5, "rewards": [1.0] * 5}
    rows |= {"token_rewards": [[0.0] * 8] * 5}
    algorithm = build("dapo", overlong_buffer=4, overlong_penalty=2.0)

    batch, _, _ = tensors(rows, Layout(), range(5))
    assert algorithm.shaped_rewards(batch).tolist() == [1.0, 0.5, 0.0, -0.5, -1.0]


def test_flat_groups_of_reinforce_pp_baseline_move_by_the_batchs_mean() -> None:
    """The long failure of the second group pulls the mean over tokens to -1/6, the standard deviation is sqrt(5)/6."""
    rows = random_rows(0, groups=2, group_size=2)
    rows |= {"mask": [[t < n for t in range(8)] for n in (1, 1, 3, 1)], "scored": [True] * 4}
    rows |= {"rewards": [1.0, 1.0, 0.0, 1.0], "token_rewards": [[0.0] * 8] * 4}
    got = run(build("reinforce_pp_baseline"), rows)
    np.testing.assert_allclose(got.advantages[:, 0], np.array([1, 1, -2, 4]) / np.sqrt(5))

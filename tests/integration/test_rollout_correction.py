"""``rollout_correction`` through the updater: weights of 1 change nothing, others scale the policy term."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from reference import correction as oracle
from support.scripted import CASES, PAD, run_update, scripted_groups, tiny_policy

from reasonrl.contracts.batch import TrainBatch
from reasonrl.data.collate import collate
from reasonrl.errors import RecipeError
from reasonrl.functional.group import group_advantages
from reasonrl.plugins import load_plugins
from reasonrl.recipe.correction import RolloutCorrectionConfig
from reasonrl.recipe.load import load_recipe

GROUPS = scripted_groups(2, 3)
TIS = RolloutCorrectionConfig()


def batch_with(rollout: Any) -> TrainBatch:
    """The scripted batch; ``rollout(old)`` are the sampler's log-probabilities."""
    batch = collate(GROUPS, pad_id=PAD, device=torch.device("cpu"))
    policy = tiny_policy(CASES["grpo"])
    with torch.no_grad():
        old = policy(batch.input_ids, batch.attention_mask, batch.response_mask, temperature=1.0).logprobs
    return replace(batch, rollout_logprobs=rollout(old))


def parameters_after(batch: TrainBatch, correction: RolloutCorrectionConfig | None, **options: Any) -> Any:
    policy = tiny_policy(CASES["grpo"])
    return run_update(CASES["grpo"], policy, GROUPS, group_size=3, batch=batch, correction=correction, **options)


@pytest.mark.parametrize("minibatches", [1, 2])
def test_a_sampler_that_agrees_changes_nothing(minibatches: int) -> None:
    batch = batch_with(lambda old: old)
    plain, corrected = (parameters_after(batch, c, minibatches=minibatches) for c in (None, TIS))
    for name, value in plain.parameters.items():
        torch.testing.assert_close(corrected.parameters[name], value, rtol=1e-9, atol=1e-9)
    if minibatches == 1:
        assert corrected.metrics["rollout/weight"] == pytest.approx(1.0)
        assert corrected.metrics["rollout/effective_sample_frac"] == pytest.approx(1.0)
        assert corrected.metrics["rollout/corrected_frac"] == 0.0


def test_a_constant_gap_scales_the_policy_gradient() -> None:
    """A sampler that called every token half as likely: weights of 2, or 1.5 where that is the threshold."""
    batch = batch_with(lambda old: old - torch.log(torch.tensor(2.0)))
    plain = parameters_after(batch, None)
    start = {name: p.detach() for name, p in tiny_policy(CASES["grpo"]).named_parameters()}
    for threshold, factor in ((3.0, 2.0), (1.5, 1.5)):
        got = parameters_after(batch, replace(TIS, threshold=threshold))
        assert got.metrics["rollout/weight"] == pytest.approx(factor)
        assert got.metrics["rollout/corrected_frac"] == float(threshold < 2)
        for name, before in start.items():
            step = plain.parameters[name] - before
            torch.testing.assert_close(got.parameters[name] - before, factor * step, rtol=1e-6, atol=1e-7)


def test_metrics_are_those_of_the_oracle() -> None:
    generator = torch.Generator().manual_seed(0)
    batch = batch_with(lambda old: old + 0.7 * torch.randn(old.shape, generator=generator, dtype=old.dtype))
    got = parameters_after(batch, RolloutCorrectionConfig(mode="mask", threshold=1.5))
    policy = tiny_policy(CASES["grpo"])
    with torch.no_grad():
        old = policy(batch.input_ids, batch.attention_mask, batch.response_mask, temperature=1.0).logprobs
    assert batch.rollout_logprobs is not None
    trained = group_advantages(batch.rewards, batch.group_ids, batch.scored, scale="std").tolist()
    weights = [
        weight
        for o, r, m, a in zip(
            old.tolist(), batch.rollout_logprobs.tolist(), batch.response_mask.tolist(), trained, strict=True
        )
        if a != 0  # rows without a gradient are not trained on
        for weight, taken in zip(oracle.weights(o, r, m, "token", "mask", 1.5, 1 / 1.5), m, strict=True)
        if taken
    ]
    assert got.metrics["rollout/weight"] == pytest.approx(sum(weights) / len(weights))
    assert got.metrics["rollout/corrected_frac"] == pytest.approx(weights.count(0.0) / len(weights))
    size = sum(weights) ** 2 / (len(weights) * sum(w * w for w in weights))
    assert got.metrics["rollout/effective_sample_frac"] == pytest.approx(size)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("{threshold: 0.5}", "rollout_correction.threshold must be >= 1, got 0.5"),
        ("{threshold_low: 0.5}", "rollout_correction.threshold_low must be null when mode is truncate, got 0.5"),
        ("{mode: mask, threshold_low: 1.5}", r"rollout_correction.threshold_low must be in \[0, 1\], got 1.5"),
        ("{level: geometric}", "level geometric needs mode mask"),
        ("{level: word}", "rollout_correction.level must be one of token, sequence, geometric, got 'word'"),
    ],
)
def test_contradictions_are_refused(options: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        load_recipe("countdown_grpo", [f"rollout_correction={options}"], load_plugins())

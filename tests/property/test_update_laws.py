"""Loss and gradient of a whole update do not depend on padding, row order, micro-batch size or number of ranks."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from support.scripted import CASES, PAD, Case, Outcome, run_update, scripted_groups, tiny_policy

from reasonrl.contracts.batch import LossInput, LossNormalizer, TrainBatch
from reasonrl.contracts.data import RewardOutput, ScoredGroup
from reasonrl.data.collate import collate
from reasonrl_critic_free.algorithm import GRPO

PROMPTS, GROUP_SIZE = 4, 3
DTYPES = {torch.float64: {"rtol": 0.0, "atol": 1e-9}, torch.float32: {"rtol": 1e-4, "atol": 1e-6}}
ANY_CASE = pytest.mark.parametrize("name", CASES)
ANY_DTYPE = pytest.mark.parametrize("dtype", DTYPES, ids=["float64", "float32"])


def as_batch(groups: list[ScoredGroup]) -> TrainBatch:
    return collate(groups, pad_id=PAD, device=torch.device("cpu"))


def update(case: Case, dtype: torch.dtype, groups: list[ScoredGroup], **options: object) -> Outcome:
    return run_update(case, tiny_policy(case, dtype=dtype), groups, group_size=GROUP_SIZE, **options)


def assert_same(a: Outcome, b: Outcome, dtype: torch.dtype) -> None:
    for name, value in a.parameters.items():
        torch.testing.assert_close(value, b.parameters[name], **DTYPES[dtype], msg=name)
    # How the work was cut up may be told; what was learned may not differ.
    for key in a.metrics:
        if not key.startswith("batch/"):
            assert a.metrics[key] == pytest.approx(b.metrics[key], rel=1e-4, abs=1e-6), key


@ANY_CASE
@ANY_DTYPE
def test_an_update_moves_every_kind_of_parameter(name: str, dtype: torch.dtype) -> None:
    case = CASES[name]
    before = dict(tiny_policy(case, dtype=dtype).named_parameters())
    after = update(case, dtype, scripted_groups(PROMPTS, GROUP_SIZE)).parameters
    still = [key for key, value in before.items() if torch.equal(value, after[key])]
    assert not still


@ANY_CASE
@ANY_DTYPE
def test_micro_batch_size_does_not_matter(name: str, dtype: torch.dtype) -> None:
    groups = scripted_groups(PROMPTS, GROUP_SIZE)
    whole = update(CASES[name], dtype, groups)
    for max_tokens in (1, 20, 45):
        assert_same(whole, update(CASES[name], dtype, groups, max_tokens=max_tokens), dtype)


@ANY_CASE
@ANY_DTYPE
def test_padding_does_not_matter(name: str, dtype: torch.dtype) -> None:
    groups = scripted_groups(PROMPTS, GROUP_SIZE)
    batch = as_batch(groups)
    extra = batch.num_rows, 5

    def widen(tensor: torch.Tensor, fill: float) -> torch.Tensor:
        return torch.cat([tensor, torch.full(extra, fill, dtype=tensor.dtype)], dim=1)

    assert batch.rollout_logprobs is not None
    wide = replace(
        batch,
        input_ids=widen(batch.input_ids, 7),
        attention_mask=widen(batch.attention_mask, False),
        response_mask=widen(batch.response_mask, False),
        rollout_logprobs=widen(batch.rollout_logprobs, float("nan")),
    )
    assert_same(update(CASES[name], dtype, groups), update(CASES[name], dtype, groups, batch=wide), dtype)


@ANY_CASE
@ANY_DTYPE
def test_order_of_groups_and_rows_does_not_matter(name: str, dtype: torch.dtype) -> None:
    groups = scripted_groups(PROMPTS, GROUP_SIZE)
    turned = [
        replace(
            scored,
            group=replace(scored.group, completions=scored.group.completions[::-1]),
            rewards=scored.rewards[::-1],
        )
        for scored in reversed(groups)
    ]
    assert_same(update(CASES[name], dtype, groups), update(CASES[name], dtype, turned), dtype)


@ANY_CASE
def test_what_stands_outside_the_masks_does_not_matter(name: str) -> None:
    """NaN and infinity at masked positions, and any reward of an unscored row, change nothing."""
    groups = scripted_groups(PROMPTS, GROUP_SIZE)
    batch = as_batch(groups)
    assert batch.rollout_logprobs is not None
    outside = ~batch.response_mask
    dirty = replace(
        batch,
        rollout_logprobs=batch.rollout_logprobs.masked_fill(outside, float("inf")),
        rewards=batch.rewards.masked_fill(~batch.scored, float("nan")),
    )
    assert bool((~batch.scored).any())
    assert_same(
        update(CASES[name], torch.float64, groups),
        update(CASES[name], torch.float64, groups, batch=dirty),
        torch.float64,
    )


@ANY_CASE
def test_an_unscored_completion_is_as_good_as_absent(name: str) -> None:
    """What an unscored completion says is never learned from: other tokens in it change nothing."""
    groups = scripted_groups(PROMPTS, GROUP_SIZE)
    gone = groups[0].group.completions[0]
    other = replace(gone, token_ids=tuple((t + 1) % 256 for t in gone.token_ids))
    changed = replace(
        groups[0],
        group=replace(groups[0].group, completions=(other, *groups[0].group.completions[1:])),
    )
    assert_same(
        update(CASES[name], torch.float64, groups),
        update(CASES[name], torch.float64, [changed, *groups[1:]]),
        torch.float64,
    )


@ANY_CASE
def test_the_first_pass_is_on_policy(name: str) -> None:
    outcome = update(CASES[name], torch.float64, scripted_groups(PROMPTS, GROUP_SIZE))
    assert outcome.metrics["policy/clip_frac"] == 0.0
    assert outcome.metrics["policy/ratio_max"] == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize("name", ["ppo", "grpo"])
def test_old_logprobs_from_the_update_itself_are_the_evaluated_ones(name: str) -> None:
    """The shortcut for a batch that is used once takes the same step as an evaluation beforehand."""
    groups = scripted_groups(PROMPTS, GROUP_SIZE)
    once = update(CASES[name], torch.float64, groups)
    case = CASES[name]
    evaluated = replace(case.needs, old_for_advantages=True)

    class Evaluated(Case):
        @property
        def needs(self):  # type: ignore[no-untyped-def]
            return evaluated

    assert_same(once, update(Evaluated(case.name, case.config), torch.float64, groups), torch.float64)


def test_rows_without_gradient_are_dropped_and_nothing_changes() -> None:
    """GRPO leaves flat groups out of the forward pass; the others are still divided by the full count."""
    groups = scripted_groups(PROMPTS, GROUP_SIZE, unscored=False)
    flat = replace(groups[1], rewards=(groups[1].rewards[0],) * GROUP_SIZE)
    groups = [groups[0], flat, *groups[2:]]
    dropped = update(CASES["grpo"], torch.float64, groups)
    assert dropped.metrics["batch/dropped_frac"] > 0

    class KeepsAll(Case):
        def algorithm(self, group_size):  # type: ignore[no-untyped-def]
            inner = super().algorithm(group_size)
            compute = inner.compute_advantages
            inner.compute_advantages = lambda *a: replace(compute(*a), contributes=None)
            return inner

    kept = update(KeepsAll("grpo", CASES["grpo"].config), torch.float64, groups)
    assert kept.metrics["batch/dropped_frac"] == 0
    for key, value in dropped.parameters.items():
        torch.testing.assert_close(value, kept.parameters[key], rtol=0, atol=1e-12)


def test_minibatches_and_epochs_take_that_many_steps() -> None:
    outcome = update(CASES["ppo"], torch.float64, scripted_groups(4, GROUP_SIZE), minibatches=2, update_epochs=3)
    assert outcome.output.policy_version == 6
    assert outcome.metrics["policy/ratio_max"] > 1.0


def test_the_normalizer_counts_tokens_and_completions() -> None:
    """Ragged completions, one unscored: their number is neither that of rows nor that of columns with a token."""
    groups = scripted_groups(3, 4, seed=1)
    batch = collate(groups, pad_id=PAD, device=torch.device("cpu"))
    seen: list[LossNormalizer] = []

    class Spy(GRPO):
        def compute_loss(self, inputs: Any, normalizer: LossNormalizer, ctx: Any) -> Any:
            seen.append(normalizer)
            return super().compute_loss(inputs, normalizer, ctx)

    case = CASES["grpo_sequence_kl"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("support.scripted.GRPO", Spy)
        run_update(case, tiny_policy(case), groups, group_size=4, batch=batch)
    lengths = [
        len(completion.token_ids)
        for group in groups
        for completion, reward in zip(group.group.completions, group.rewards, strict=True)
        if reward.total is not None
    ]
    assert len(lengths) == batch.num_rows - 1 != int(batch.response_mask.any(dim=0).sum())
    assert {(n.num_response_tokens, n.num_sequences) for n in seen} == {(float(sum(lengths)), float(len(lengths)))}


def test_one_row_of_a_batch_without_gradient_is_still_measured() -> None:
    """Every group is flat: nothing is learned, and the gap to the sampler and the entropy stay known."""
    groups = scripted_groups(PROMPTS, GROUP_SIZE, unscored=False)
    same = RewardOutput(total=1.0, components={"r": 1.0}, correct=True)
    flat = [replace(group, rewards=(same,) * GROUP_SIZE) for group in groups]
    before = tiny_policy(CASES["grpo"])
    outcome = update(CASES["grpo"], torch.float64, flat)
    for name, parameter in before.named_parameters():
        assert torch.equal(outcome.parameters[name], parameter), name
    rows = PROMPTS * GROUP_SIZE
    assert outcome.metrics["batch/dropped_frac"] == pytest.approx((rows - 1) / rows)
    assert outcome.metrics["rollout/logprob_gap"] > 0
    assert outcome.metrics["policy/entropy"] > 0


@pytest.mark.parametrize("minibatches", [1, 2])
@ANY_CASE
def test_a_loss_is_given_constants_beside_the_policys_outputs(name: str, minibatches: int) -> None:
    seen = []

    class Watched(Case):
        def algorithm(self, group_size: int) -> Any:
            algorithm = super().algorithm(group_size)
            compute_loss = algorithm.compute_loss

            def watch(given: LossInput, *rest: Any) -> Any:
                constants = [given.evals.old_logprobs, given.evals.ref_logprobs, given.evals.values]
                constants += [given.advantages.advantages, given.advantages.returns]
                seen.extend(tensor.requires_grad for tensor in constants if tensor is not None)
                assert given.logprobs.requires_grad
                return compute_loss(given, *rest)

            algorithm.compute_loss = watch
            return algorithm

    case = Watched(CASES[name].name, CASES[name].config)
    update(case, torch.float64, scripted_groups(PROMPTS, GROUP_SIZE), minibatches=minibatches)
    assert seen
    assert not any(seen)


@pytest.mark.parametrize(("factor", "count"), [(math.nan, 2.0), (math.inf, 2.0), (1.0, 0.0)])
def test_a_loss_that_is_not_finite_is_counted_once_a_step(factor: float, count: float) -> None:
    class Broken(Case):
        def algorithm(self, group_size: int) -> Any:
            algorithm = super().algorithm(group_size)
            compute_loss = algorithm.compute_loss

            def spoil(*given: Any) -> Any:
                output = compute_loss(*given)
                return replace(output, loss=output.loss * factor)

            algorithm.compute_loss = spoil
            return algorithm

    case = Broken(CASES["ppo"].name, CASES["ppo"].config)
    found = update(case, torch.float64, scripted_groups(PROMPTS, GROUP_SIZE), minibatches=2, max_tokens=20).metrics
    assert found["numerics/nonfinite_losses"] == count
    assert ("loss/total" in found) is not bool(count)

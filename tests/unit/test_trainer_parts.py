"""The trainer's small pure parts: micro-batches, schedules, metrics of rollouts."""

import math
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from support.builders import completion, group, output, scored
from support.small_recipes import PLUGIN, recipe

from reasonrl import FinishReason, ScoredGroup
from reasonrl.contracts.metrics import resolve
from reasonrl.data.collate import collate
from reasonrl.errors import RecipeError
from reasonrl.functional.group import group_advantages
from reasonrl.plugins import load_plugins
from reasonrl.recipe.load import load_recipe
from reasonrl.recipe.resolved import ResolvedRecipe
from reasonrl.recipe.schema import OptimizerConfig
from reasonrl.runs.assemble import check_divisible
from reasonrl.trainer.microbatch import count_padded_tokens, list_local_prompts, plan_microbatches
from reasonrl.trainer.rollout_metrics import rollout_metrics
from reasonrl.trainer.schedule import open_schedule
from reasonrl.trainer.update import measure_rollout_gap


def test_micro_batches_hold_the_budget_and_every_row_once() -> None:
    rng = random.Random(0)
    for _ in range(50):
        lengths = [rng.randint(1, 30) for _ in range(rng.randint(1, 20))]
        rows = rng.sample(range(len(lengths)), rng.randint(0, len(lengths)))
        budget = rng.randint(1, 90)
        plan = plan_microbatches(lengths, rows, budget)
        assert sorted(row for part in plan for row in part) == sorted(rows)
        for part in plan:
            assert len(part) == 1 or len(part) * max(lengths[row] for row in part) <= budget
        order = [lengths[row] for part in plan for row in part]
        assert order == sorted(order, reverse=True)


def test_the_budget_is_filled_to_the_last_token() -> None:
    assert plan_microbatches([5, 2, 4], [0, 1, 2], 10) == [[0, 2], [1]]
    assert plan_microbatches([5, 2, 4], [0, 1, 2], 9) == [[0], [2, 1]]
    assert plan_microbatches([5, 5, 5], [2, 0, 1], 15) == [[0, 1, 2]]
    assert count_padded_tokens([5, 2, 4], [[0, 2], [1]]) == 12
    assert count_padded_tokens([5], [[]]) == 0


@pytest.mark.parametrize("ranks", [1, 2, 3, 6])
def test_a_minibatch_holds_the_same_prompts_however_many_ranks(ranks: int) -> None:
    shares = [list_local_prompts(12, 2, ranks, rank) for rank in range(ranks)]
    assert sorted(i for share in shares for i in share) == list(range(12))
    for minibatch in range(2):
        size = 6 // ranks
        members = {i for share in shares for i in share[minibatch * size : (minibatch + 1) * size]}
        assert members == set(range(minibatch * 6, minibatch * 6 + 6))


def factors(total: int = 8, **options: Any) -> list[float]:
    schedule = open_schedule(OptimizerConfig(**options), total)
    return [schedule.factor(step) for step in range(1, total + 1)]


def test_schedules_by_hand() -> None:
    assert factors(4) == [1.0] * 4
    assert factors(4, schedule="linear") == [1.0, 0.75, 0.5, 0.25]
    assert factors(4, schedule="cosine") == pytest.approx(
        [1.0, 0.5 + 0.25 * math.sqrt(2), 0.5, 0.5 - 0.25 * math.sqrt(2)]
    )
    assert factors(6, schedule="linear", warmup_steps=2) == [0.5, 1.0, 1.0, 0.75, 0.5, 0.25]
    assert factors(3, warmup_steps=4, schedule="cosine") == [0.25, 0.5, 0.75]
    assert factors(2, warmup_steps=2, schedule="linear") == [0.5, 1.0]


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
def test_a_factor_is_never_zero_or_above_one(schedule: Any) -> None:
    assert all(0 < f <= 1 for f in factors(50, schedule=schedule, warmup_steps=7))


def test_rollout_metrics_by_hand() -> None:
    first = ScoredGroup(
        group=group([completion(range(4), reason=FinishReason.LENGTH), completion(range(2)), completion(range(3))]),
        rewards=(
            output(1.0, correct=True, metrics={"r/depth": 2.0}),
            output(0.0, correct=False),
            output(None, correct=True, metrics={"r/depth": 4.0}),
        ),
    )
    metrics = resolve(rollout_metrics([first, scored([0.5, 0.5])], set()))
    assert metrics == pytest.approx(
        {
            "train/reward": 2.0 / 4,
            "train/unscored_frac": 1 / 5,
            "train/accuracy": 1 / 4,
            "train/length_tokens": 13 / 5,
            "train/length_tokens_max": 4.0,
            "train/truncated_frac": 1 / 5,
            "group/zero_std_frac": 1 / 2,
            "reward/component/r": 2.0 / 4,
            "reward/detail/r/depth": 3.0,
        }
    )


def test_nothing_scored_has_no_mean_reward() -> None:
    metrics = resolve(rollout_metrics([scored([None, None])], set()))
    assert metrics["train/unscored_frac"] == 1.0
    assert not {"train/reward", "train/accuracy", "reward/component/r"} & metrics.keys()


@pytest.mark.parametrize(
    ("totals", "flat"),
    [
        ([1.0, 1.0], True),
        ([1.0, 0.0], False),
        ([None, 1.0], True),
        ([None, None], True),
        ([0.1 + 0.2, 0.3], True),
        ([0.0, 2e-6], False),
        ([1000.0, 1000.0005], True),
        ([1000.0, 1000.1], False),
    ],
)
def test_a_flat_group_has_zero_advantages(totals: list[float | None], flat: bool) -> None:
    assert resolve(rollout_metrics([scored(totals)], set()))["group/zero_std_frac"] == float(flat)
    rewards = torch.tensor([total or 0.0 for total in totals], dtype=torch.float64)
    known = torch.tensor([total is not None for total in totals])
    advantages = group_advantages(rewards, torch.zeros(len(totals), dtype=torch.int64), known, scale="std")
    assert (not advantages.any()) is flat


def test_the_gap_to_the_sampler_by_hand() -> None:
    rows = ScoredGroup(
        group=group([completion((1, 2, 3), logprobs=(-1.0, -2.0, -math.inf)), completion((4,), logprobs=(-9.0,))]),
        rewards=(output(1.0), output(None)),
    )
    batch = collate([rows], pad_id=0, device=torch.device("cpu"))
    old = torch.tensor([[5.0, -1.5, -2.0, -3.0], [5.0, -1.0, 0.0, 0.0]])
    metrics = resolve(measure_rollout_gap(old, batch, 0))
    assert metrics == pytest.approx(
        {
            "policy/kl_rollout_k3": (math.exp(-0.5) - 1 + 0.5) / 2,
            "rollout/logprob_gap": 0.25,
            "rollout/logprob_gap_max": 0.5,
        }
    )
    assert measure_rollout_gap(None, batch, 0) == {}
    stale = resolve(measure_rollout_gap(old, batch, 1))
    assert stale == {"policy/kl_stale_k3": metrics["policy/kl_rollout_k3"]}, "an earlier policy sampled these rows"
    silent = collate([scored([1.0])], pad_id=0, device=torch.device("cpu"))
    assert measure_rollout_gap(old, silent, 0) == {}


def test_prompts_must_divide_over_minibatches_and_processes(tmp_path: Path, tiny_model: Path) -> None:
    path = recipe(tmp_path, tiny_model, trainer={"steps": 1, "prompts_per_step": 12, "minibatches": 2})
    resolved = load_recipe(path, [], load_plugins(files=[PLUGIN]))
    assert isinstance(resolved, ResolvedRecipe)
    for size in (1, 2, 3, 6):
        check_divisible(resolved, Processes(size))  # type: ignore[arg-type]
    with pytest.raises(RecipeError, match=r"prompts_per_step=12 must be a multiple of .* = 2 x 4 = 8"):
        check_divisible(resolved, Processes(4))  # type: ignore[arg-type]


@dataclass(frozen=True)
class Processes:
    size: int

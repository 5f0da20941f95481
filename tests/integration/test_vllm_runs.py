"""Training with the engine ``vllm``: the shipped recipes learn, and stale weights are noticed."""

import logging
from pathlib import Path

import pytest
from support.tiny_runs import RECIPES, metrics_of

import reasonrl

pytestmark = pytest.mark.vllm
STALE = str(Path(__file__).parents[1] / "support" / "stale_vllm.py")
SMALL = (
    "evaluation.every=0",
    "evaluation.suites.held_out.problems=8",
    "evaluation.suites.four_numbers.problems=8",
    "evaluation.suites.greedy.problems=8",
    "checkpoint.every=0",
    "seed=0",
)


def train(recipe: str, run_dir: Path, *overrides: str, plugins: tuple[str, ...] = ()) -> list[dict[str, float]]:
    reasonrl.run(RECIPES / recipe, [*SMALL, *overrides], run_dir=run_dir, plugins=plugins)
    return metrics_of(run_dir)


@pytest.mark.parametrize("recipe", ["countdown_grpo.yaml", pytest.param("countdown_ppo.yaml", marks=pytest.mark.long)])
def test_ten_small_steps_learn(recipe: str, tmp_path: Path) -> None:
    prompts = 16 if "grpo" in recipe else 128
    lines = train(
        recipe,
        tmp_path / "run",
        "rollout_backend.name=vllm",
        "trainer.steps=10",
        f"trainer.prompts_per_step={prompts}",
        "optimizer.schedule=constant",
    )
    assert len(lines) == 10
    assert all(line["rollout/logprob_gap_max"] < 1e-4 for line in lines)
    rewards = [line["train/reward"] for line in lines]
    assert sum(rewards[-3:]) > sum(rewards[:3]), rewards


def test_an_engine_that_keeps_old_weights_is_named_within_one_step(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        lines = train(
            "countdown_grpo.yaml",
            tmp_path / "run",
            "rollout_backend.name=stale-vllm",
            "trainer.steps=2",
            "trainer.prompts_per_step=8",
            plugins=(STALE,),
        )
    first, second = (line["rollout/logprob_gap"] for line in lines)
    assert first < 1e-5
    assert second > 1e-3
    assert "step 2: sampler and trainer differ" in caplog.text
    assert "stale weights" in caplog.text

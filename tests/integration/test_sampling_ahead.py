"""``trainer.max_staleness: 1``: the next step's prompts are sampled during the update, by weights that are known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.resume_runs import assert_same_run, cut_back, go, metrics_without_times, resumable_recipe, whole_run

STEPS = 5
OPTIMIZER_STEPS = 2
"""Minibatches of a step."""


def sections(folder: Path, **changes: Any) -> dict[str, Any]:
    """A GRPO run that samples ahead and writes a journal of its engine."""
    trainer = {"steps": STEPS, "prompts_per_step": 4, "minibatches": OPTIMIZER_STEPS, "max_staleness": 1}
    return {
        "algorithm": {"name": "grpo"},
        "critic": None,
        "rollout_backend": {"name": "stub", "journal": str(folder / "journal"), **changes.pop("stub", {})},
        "rollout_correction": {},
        "trainer": {**trainer, **changes.pop("trainer", {})},
        **changes,
    }


def events(folder: Path, *kinds: str, rank: int = 0) -> list[dict[str, Any]]:
    lines = map(json.loads, (folder / f"journal.{rank}").read_text().splitlines())
    return [line for line in lines if not kinds or line["event"] in kinds]


def trained_on(run: Path) -> list[set[str]]:
    """Problems of each step."""
    steps = sorted((run / "transcripts").glob("step_*.jsonl"))
    return [{json.loads(line)["problem_id"] for line in step.read_text().splitlines()} for step in steps]


def test_every_step_trains_on_samples_of_the_weights_before_the_last_update(tiny_model: Path, tmp_path: Path) -> None:
    run = whole_run(tmp_path, tiny_model, **sections(tmp_path, evaluation={"every": 0}))
    metrics = metrics_without_times(run)
    assert [line["policy/version"] for line in metrics] == [OPTIMIZER_STEPS * step for step in range(1, STEPS + 1)]
    behind = [0, *[OPTIMIZER_STEPS] * (STEPS - 1)]
    assert [line["rollout/staleness"] for line in metrics] == behind
    assert [line["rollout/staleness_max"] for line in metrics] == behind
    assert metrics[0]["rollout/logprob_gap_max"] < 1e-4
    for line in metrics[1:]:
        assert "rollout/logprob_gap" not in line
        assert line["policy/kl_stale_k3"] > 1e-4
    rounds = [(line["version"], set(line["problems"])) for line in events(tmp_path, "began")]
    problems = [f"numbers/train/{i}" for i in range(4 * STEPS)]
    assert rounds == [
        (max(0, OPTIMIZER_STEPS * (step - 1)), set(problems[4 * step : 4 * step + 4])) for step in range(STEPS)
    ]

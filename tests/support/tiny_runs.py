"""Whole runs on tiny random models: seconds each."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
RECIPES = REPOSITORY / "recipes"

SMALL = (
    "trainer.steps=2",
    "trainer.prompts_per_step=4",
    "sampling.max_completion_tokens=12",
    "evaluation.every=0",
    "evaluation.suites.held_out.problems=4",
    "evaluation.suites.four_numbers.problems=4",
    "evaluation.suites.greedy.problems=4",
    "logging.report=false",
)


def tiny(model: Path, *more: str) -> list[str]:
    """Overrides that make a shipped Countdown recipe a run of two small steps on ``model``."""
    return [f"model.path={model}", "model.name=null", "sampling.max_prompt_tokens=512", *SMALL, *more]


def sampled(run_dir: Path) -> list[dict[tuple[str, int], str]]:
    """Of every step: problem and number of the sample -> completion, as far as they were logged."""
    steps = sorted((run_dir / "transcripts").glob("step_*.jsonl"))
    rows = [[json.loads(line) for line in step.read_text().splitlines()] for step in steps]
    return [{(row["problem_id"], row["sample"]): row["completion"] for row in step} for step in rows]


def metrics_of(run_dir: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]

"""Whole runs in which something is not finite: counted, and ended after three with cause and a last good model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from support.small_recipes import cli, recipe, sft_recipe, summary_of
from support.tiny_runs import metrics_of

CAUSES: dict[str, tuple[dict[str, Any], str, str]] = {
    # 0.25 to 1 x 1e39: finite in Python, infinite in float32
    "reward": ({"rewards": {"flaky": {"weight": 1e39}}}, "nonfinite_rewards", "rewards came out NaN or infinite"),
    "loss": ({"algorithm": {"name": "sabotage", "pattern": ["nan"] * 9}}, "nonfinite_losses", "the loss came out"),
    "gradient": (
        {"algorithm": {"name": "sabotage", "pattern": ["bad_grad"] * 9}},
        "nonfinite_gradients",
        "the gradient came out",
    ),
}  # fmt: skip


@pytest.mark.fault
@pytest.mark.parametrize("cause", CAUSES)
def test_three_in_a_row_end_the_run_with_the_cause_and_a_good_model(
    cause: str, tiny_model: Path, tmp_path: Path
) -> None:
    sections, key, said = CAUSES[cause]
    path = recipe(tmp_path, tiny_model, trainer={"steps": 9, "prompts_per_step": 4}, **sections)
    done = cli("train", path, "--run-dir", tmp_path / "run")
    assert done.exit_code == 1, done.output
    (error,) = [line for line in done.output.splitlines() if line.startswith("error: ")] or [done.output]
    assert said in error
    lines = metrics_of(tmp_path / "run")
    assert [line["optim/skipped_updates"] for line in lines] == [1.0, 1.0, 1.0]
    assert all(line[f"numerics/{key}"] >= 1 for line in lines)
    assert [line["policy/version"] for line in lines] == [0.0, 0.0, 0.0]
    assert summary_of(tmp_path / "run")["outcome"] == "failed"
    saved = load_file(tmp_path / "run" / "checkpoints" / "step_000003" / "model.safetensors")
    start = load_file(tiny_model / "model.safetensors")
    assert saved.keys() == start.keys()
    assert all(saved[name].equal(start[name]) for name in start)


def test_an_infinite_reward_is_strict_json_in_the_run_folder(tiny_model: Path, tmp_path: Path) -> None:
    path = recipe(tmp_path, tiny_model, rewards={"flaky": {"weight": 1e39}})
    assert cli("train", path, "--run-dir", tmp_path / "run").exit_code == 0

    def refuse(text: str) -> None:
        raise AssertionError(text)

    for file in (tmp_path / "run").rglob("*.json*"):
        for line in file.read_text().splitlines() if file.suffix == ".jsonl" else [file.read_text()]:
            json.loads(line, parse_constant=refuse)


@pytest.mark.fault
def test_sft_ends_likewise(tiny_model: Path, tmp_path: Path) -> None:
    """The second step's weights are out of all bounds; from the third on nothing is finite."""
    sft = {"max_tokens": 2000, "tokens_per_batch": 100}
    optimizer = {"learning_rate": 1e38, "max_grad_norm": 1e30}
    path = sft_recipe(tmp_path, tiny_model, sft=sft, optimizer=optimizer)
    done = cli("sft", path, "--run-dir", tmp_path / "run")
    assert done.exit_code == 1, done.output
    assert "3 updates in a row were skipped" in done.output
    lines = metrics_of(tmp_path / "run")
    assert [line["optim/skipped_updates"] for line in lines[-3:]] == [1.0, 1.0, 1.0]
    assert lines[-1]["numerics/nonfinite_losses"] == 1.0
    assert summary_of(tmp_path / "run")["outcome"] == "failed"

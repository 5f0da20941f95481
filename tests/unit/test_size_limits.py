"""Rewards and files of any size: limits, with what is over them counted."""

import json
from pathlib import Path

import pytest
from support.builders import completion, group

from reasonrl import RewardOutput, ScoredGroup
from reasonrl.analysis.doctor import records
from reasonrl.contracts.metrics import Metric
from reasonrl.rundir.jsonl import read_jsonl
from reasonrl.trainer.rollout_metrics import MAX_NAMES, MAX_RUN_NAMES, rollout_metrics


def details(step: int, seen: set[str]) -> dict[str, Metric]:
    """Metrics of a step of 20 completions, each with 50 names that no step before had."""
    rewards = tuple(
        RewardOutput(total=1.0, components={"r": 1.0}, correct=True, metrics={f"r/{step}-{n}": 1.0 for n in names})
        for names in (range(50 * c, 50 * c + 50) for c in range(20))
    )
    scored = ScoredGroup(group=group([completion(text="a")] * 20), rewards=rewards)
    return {key: value for key, value in rollout_metrics([scored], seen).items() if key.startswith("reward/detail/")}


def test_new_names_with_every_completion_are_limited_in_a_step_and_in_a_run() -> None:
    seen: set[str] = set()
    for step in range(20):
        found = details(step, seen)
        dropped = found.pop("reward/detail/all/names_dropped").value
        assert len(found) == (MAX_NAMES if step < MAX_RUN_NAMES // MAX_NAMES else 0)
        assert dropped + len(found) == 1000
    assert len(seen) == MAX_RUN_NAMES
    assert len(details(0, seen)) == MAX_NAMES + 1  # known ones stay


def test_the_doctor_reads_a_large_file_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "MOST_METRICS", 10_000)
    lines = [json.dumps({"step": step, "train/reward": 0.5}) for step in range(1, 1001)]
    file = tmp_path / "metrics.jsonl"
    file.write_text("\n".join([*lines, "x" * 50_000, "torn"]))
    problems: list[str] = []
    found = records.read_metrics(file, problems)
    assert 80 < len(found.lines) < 300
    assert found.is_cut
    assert "lines was read" in problems[0]


def test_a_file_of_records_is_read_line_by_line(tmp_path: Path) -> None:
    file = tmp_path / "m.jsonl"
    file.write_text('{"a": "\u2028"}\n{"a": 2}\n{"a": ')
    assert [record["a"] for record in read_jsonl(file)] == ["\u2028", 2]

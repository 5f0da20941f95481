"""Rewards and files of any size: limits, with what is over them counted."""

import json
from pathlib import Path

import pytest
from support.builders import completion, group

from reasonrl import RewardOutput, ScoredGroup
from reasonrl.analysis.doctor import records
from reasonrl.rundir.jsonl import read_jsonl
from reasonrl.trainer.rollout_metrics import MAX_NAMES, rollout_metrics


def test_new_names_with_every_completion_are_limited_in_a_step() -> None:
    rewards = tuple(
        RewardOutput(total=1.0, components={"r": 1.0}, correct=True, metrics={f"r/{c}-{n}": 1.0 for n in range(50)})
        for c in range(20)
    )
    scored = ScoredGroup(group=group([completion(text="a")] * 20), rewards=rewards)
    metrics = rollout_metrics([scored])
    details = [key for key in metrics if key.startswith("reward/detail/r/")]
    assert len(details) == MAX_NAMES
    assert metrics["reward/detail/all/names_dropped"].value == 1000 - MAX_NAMES


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

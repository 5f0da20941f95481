"""A data file that was edited, or is gone, between a run and its continuation."""

import json
from pathlib import Path
from typing import Any

import pytest
from support.small_recipes import cli, recipe, sft_recipe, summary_of
from support.tiny_runs import metrics_of

ROWS = [{"nums": [3, 5, number], "target": 8 + number} for number in range(1, 60)]
PAIRS = [{"prompt": f"{number}+1=", "completion": f"{number + 1}"} for number in range(40)]


def train(folder: Path, model: Path) -> tuple[str, Path, Path]:
    data = folder / "nums.jsonl"
    write(data, ROWS)
    sections: dict[str, Any] = {
        "task": {"name": "countdown", "source": "dataset", "dataset": str(data)},
        "algorithm": {"name": "grpo"},
        "sampling": {"group_size": 2, "max_prompt_tokens": 600, "max_completion_tokens": 4},
        "trainer": {"steps": 1, "prompts_per_step": 2},
        "evaluation": {"every": 0, "suites": None},
    }
    done = cli("train", recipe(folder, model, **sections), "--run-dir", folder / "run")
    assert done.exit_code == 0, done.output
    return "trainer.steps=2", data, folder / "run"


def sft(folder: Path, model: Path) -> tuple[str, Path, Path]:
    data = folder / "pairs.jsonl"
    write(data, PAIRS)
    sections: dict[str, Any] = {"task": None, "data": {"path": str(data)}, "evaluation": {"suites": None}}
    done = cli("sft", sft_recipe(folder, model, **sections), "--run-dir", folder / "run")
    assert done.exit_code == 0, done.output
    return "sft.max_tokens=400", data, folder / "run"


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize(("start", "key"), [(train, "task.dataset"), (sft, "data.path")])
def test_a_resume_refuses_data_that_was_edited(start: Any, key: str, tmp_path: Path, tiny_model: Path) -> None:
    longer, data, run = start(tmp_path, tiny_model)
    before, records, summary = data.read_bytes(), metrics_of(run), summary_of(run)
    data.write_bytes(before.replace(b"7", b"8"))
    done = cli("resume", run, longer)
    assert done.exit_code == 2, done.output
    assert f"recipe.{key}: its file was edited; undo the change, or start a new run" in done.output
    assert "Traceback" not in done.output
    data.unlink()
    gone = cli("resume", run, longer)
    assert gone.exit_code == 2, gone.output
    assert f"{key}: {data}: no such file" in gone.output
    assert (metrics_of(run), summary_of(run)) == (records, summary)
    data.write_bytes(before)
    assert cli("resume", run, longer).exit_code == 0
    assert len(metrics_of(run)) > len(records)

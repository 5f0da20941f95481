"""Whatever a task, its replies or a backend return: a run ends with one line that names them, or continues."""

from pathlib import Path
from typing import Any

import pytest
from support.odd_values_plugin import COMPLETIONS, GROUPS, PROBLEMS, REPLIES
from support.small_recipes import recipe
from support.tiny_runs import metrics_of
from typer.testing import CliRunner, Result

from reasonrl.cli.app import app

PLUGIN = "support.odd_values_plugin"


def train(folder: Path, model: Path, *, task: str = "", backend: str = "") -> Result:
    sections: dict[str, Any] = {
        "task": {"name": "odd", "odd": task},
        "algorithm": {"name": "grpo"},
        "rollout_backend": {"name": "odd", "odd": backend},
        "sampling": {"group_size": 2, "max_prompt_tokens": 20, "max_completion_tokens": 4, "max_turns": 2},
        "trainer": {"steps": 1, "prompts_per_step": 8},
        "evaluation": {"every": 0, "suites": None},
        "logging": {"report": False},
    }
    path = recipe(folder, model, **sections)
    return CliRunner().invoke(app, ["train", str(path), "--run-dir", str(folder / "run"), "--plugin", PLUGIN])


@pytest.mark.slow
@pytest.mark.parametrize("odd", [*COMPLETIONS, *GROUPS])
def test_what_a_backend_returns_is_checked(odd: str, tmp_path: Path, tiny_model: Path) -> None:
    check_refusal(train(tmp_path, tiny_model, backend=odd), "rollout_backend 'odd'")


@pytest.mark.slow
@pytest.mark.parametrize("odd", PROBLEMS)
def test_what_a_task_returns_is_checked(odd: str, tmp_path: Path, tiny_model: Path) -> None:
    check_refusal(train(tmp_path, tiny_model, task=odd), "task 'odd'")


def check_refusal(done: Result, owner: str) -> None:
    errors = [line for line in done.output.splitlines() if line.startswith("error: ")]
    assert (done.exit_code, len(errors)) == (2, 1), done.output
    assert errors[0].startswith(f"error: {owner}")
    assert "Traceback" not in done.output


@pytest.mark.slow
@pytest.mark.parametrize("odd", REPLIES)
def test_an_odd_reply_costs_its_completions_only(
    odd: str, tmp_path: Path, tiny_model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    done = train(tmp_path, tiny_model, task=odd)
    assert done.exit_code == 0, done.output
    assert metrics_of(tmp_path / "run")[0]["train/unscored_frac"] == 2 / 16
    (said,) = [record for record in caplog.records if "stays unscored" in record.message]
    assert said.message.startswith("task 'odd': respond to problem 'odd/train/0'")


def test_plain_values_train(tmp_path: Path, tiny_model: Path) -> None:
    done = train(tmp_path, tiny_model)
    assert done.exit_code == 0, done.output

"""The packaged recipes are accepted, benchmarks read the columns of the hub, and a run trains."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from reasonrl_code import plugin


def reasonrl(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "reasonrl", *arguments], capture_output=True, text=True, check=False)


def test_the_packaged_recipes_are_accepted() -> None:
    check = (
        "import sys; from reasonrl.cli.app import app\n"
        "sys.exit(sum(app(['recipes', 'check', n], standalone_mode=False) or 0 for n in sys.argv[1:]))"
    )
    names = [spec.name for spec in plugin.reasonrl_recipes()]
    done = subprocess.run([sys.executable, "-c", check, *names], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_listing_the_plugin_imports_nothing_heavy_and_starts_nothing() -> None:
    check = (
        "import sys, reasonrl_code.plugin as p\n"
        "list(p.reasonrl_tasks()), list(p.reasonrl_rewards()), list(p.reasonrl_recipes())\n"
        "print(sorted({'torch', 'datasets', 'ctypes', 'reasonrl_code.sandbox'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_preview_shows_what_the_reference_earns() -> None:
    done = reasonrl("tasks", "preview", "code", "-n", "3", "--json")
    assert done.returncode == 0, done.stderr
    assert [entry["reference_reward"] for entry in json.loads(done.stdout)] == [1.0, 1.0, 1.0]


def test_a_wrong_option_has_a_place() -> None:
    done = reasonrl("tasks", "preview", "code", "shwn_tests=9")
    assert done.returncode == 2
    assert "did you mean 'shown_tests'?" in done.stderr


def test_two_steps_of_training(run_recipe: Callable[..., Any]) -> None:
    """Programs of a tiny model: none is right, each is judged."""
    recipe = {
        "name": "code_smoke",
        "model": {"name": "countdown-base"},
        "task": {"name": "code", "template": "base"},
        "rewards": {"tests_passed": {"seconds": 20}},
        "algorithm": {"name": "grpo"},
        "sampling": {"group_size": 2, "max_prompt_tokens": 1000, "max_completion_tokens": 8},
        "trainer": {"steps": 2, "prompts_per_step": 2},
    }
    result = run_recipe(recipe)
    assert result.outcome == "completed"
    assert result.summary["steps"] == 2
    metrics = [json.loads(line) for line in (Path(result.run_dir) / "metrics.jsonl").read_text().splitlines()]
    assert [row["train/unscored_frac"] for row in metrics if "train/unscored_frac" in row] == [0.0, 0.0]


SAYS = """
from reasonrl import hookimpl
from reasonrl.testing import scripted_spec

@hookimpl
def reasonrl_rollout_backends():
    right, half, hostile = "def f(n): return n + 1", "def f(n): return 1", "import os\\nos._exit(0)"
    yield scripted_spec([f"{text}\\n```" for text in (right, half, hostile)], name="says")
"""


def test_the_command_trains_on_programs(tmp_path: Path) -> None:
    """A right, a half right and a hostile program are paid 1, 0.5 and 0, through ``reasonrl train``."""
    rows = [{"text": f"Write f, number {i}.", "test_list": ["assert f(0) == 1", "assert f(5) == 6"]} for i in range(40)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "says.py").write_text(SAYS)
    recipe = f"""
name: says
model: {{name: countdown-base}}
task: {{name: code, path: {tmp_path / "rows.jsonl"}, template: base}}
rewards: {{tests_passed: {{seconds: 20}}}}
algorithm: {{name: grpo}}
sampling: {{group_size: 3, max_prompt_tokens: 1000, max_completion_tokens: 64}}
rollout_backend: {{name: says}}
trainer: {{steps: 2, prompts_per_step: 2}}
device: cpu
"""
    (tmp_path / "says.yaml").write_text(recipe)
    run = tmp_path / "run"
    done = reasonrl("train", str(tmp_path / "says.yaml"), "--plugin", str(tmp_path / "says.py"), "--run-dir", str(run))
    assert done.returncode == 0, done.stderr
    metrics = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [round(row["train/reward"], 6) for row in metrics if "train/reward" in row] == [0.5, 0.5]


def test_a_sandbox_that_is_not_there_is_an_error_of_the_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Named with its key, before the run starts, with a way out."""
    monkeypatch.setenv("PATH", str(tmp_path))
    recipe = """
name: none
model: {name: countdown-base}
task: {name: code, template: base}
rewards: {tests_passed: {sandbox: bubblewrap}}
algorithm: {name: grpo}
sampling: {group_size: 2, max_prompt_tokens: 1000, max_completion_tokens: 8}
trainer: {steps: 2, prompts_per_step: 2}
device: cpu
"""
    (tmp_path / "none.yaml").write_text(recipe)
    done = reasonrl("train", str(tmp_path / "none.yaml"), "--run-dir", str(tmp_path / "run"))
    assert done.returncode == 2, done.stderr
    assert "bubblewrap is not installed" in done.stderr
    assert "Traceback" not in done.stderr

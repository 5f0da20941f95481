"""The packaged recipes are accepted; a mixture trains; what the command line shows."""

import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest


def reasonrl(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "reasonrl", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("name", ["reasoning_gym_grpo", "reasoning_gym_suites"])
def test_a_packaged_recipe_is_accepted(name: str) -> None:
    done = reasonrl("recipes", "check", name)
    assert done.returncode == 0, done.stderr


def test_preview_shows_what_the_reference_earns() -> None:
    """Tower of Hanoi prints while it generates; that must not end up in the JSON."""
    done = reasonrl("tasks", "preview", "reasoning_gym", "dataset=tower_of_hanoi", "-n", "2", "--json")
    assert done.returncode == 0, done.stderr
    assert [entry["reference_reward"] for entry in json.loads(done.stdout)] == [1.0, 1.0]


def test_a_wrong_option_has_a_place() -> None:
    done = reasonrl("tasks", "preview", "reasoning_gym", "dataset=chain_sum", "config.min_term=3")
    assert done.returncode == 2
    assert "did you mean 'min_terms'?" in done.stderr
    assert "Traceback" not in done.stderr


def test_two_steps_on_a_mixture(run_recipe: Callable[..., Any]) -> None:
    recipe = {
        "name": "gym_smoke",
        "model": {"name": "countdown-base"},
        "task": {
            "name": "reasoning_gym",
            "template": "bare",
            "datasets": {"chain_sum": {}, "leg_counting": {}},
        },
        "algorithm": {"name": "grpo"},
        "sampling": {"group_size": 2, "max_prompt_tokens": 1000, "max_completion_tokens": 8},
        "trainer": {"steps": 2, "prompts_per_step": 2},
    }
    result = run_recipe(recipe)
    assert result.outcome == "completed"
    assert result.summary["steps"] == 2

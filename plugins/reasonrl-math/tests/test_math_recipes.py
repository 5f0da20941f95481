"""The packaged recipes are accepted, and one of them trains."""

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

RECIPES = ("multiplication_grpo", "gsm8k_grpo", "other_tasks")


@pytest.mark.parametrize("name", RECIPES)
def test_a_packaged_recipe_is_accepted(name: str) -> None:
    command = [sys.executable, "-m", "reasonrl", "recipes", "check", name]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_wrong_option_has_a_place() -> None:
    command = [sys.executable, "-m", "reasonrl", "tasks", "preview", "multiplication", "max_factr=9"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "did you mean 'max_factor'?" in done.stderr


def test_two_steps_of_the_smoke_recipe(run_recipe: Callable[..., Any]) -> None:
    """Word problems with both rewards, the boxed one in its own process."""
    recipe = {
        "name": "math_smoke",
        "model": {"name": "countdown-base"},
        "task": {"name": "math", "template": "base"},
        "rewards": {"math_boxed": {}, "think_format": {"weight": 0.2}},
        "algorithm": {"name": "grpo"},
        "sampling": {"group_size": 2, "max_prompt_tokens": 1000, "max_completion_tokens": 8},
        "trainer": {"steps": 2, "prompts_per_step": 2},
    }
    result = run_recipe(recipe)
    assert result.outcome == "completed"
    assert result.summary["steps"] == 2

"""The packaged recipes are accepted, and one of them trains."""

import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from reasonrl_math import plugin

RECIPES = [spec.name for spec in plugin.reasonrl_recipes()]


@pytest.mark.parametrize("name", RECIPES)
def test_a_packaged_recipe_is_accepted(name: str) -> None:
    command = [sys.executable, "-m", "reasonrl", "recipes", "check", name]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_recipe_fits_as_its_header_says() -> None:
    command = [sys.executable, "-m", "reasonrl", "plan", "gsm8k_grpo", "--gpu", "4090", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    plan = json.loads(done.stdout)
    assert plan["fits"]
    (recipe,) = [spec.path for spec in plugin.reasonrl_recipes() if spec.name == "gsm8k_grpo"]
    need = (plan["peak"]["bytes"] + plan["peak"]["reserve"]) / 2**30
    assert f"# Plan for RTX 4090: {need:.1f} of 24.0 GiB" in recipe.read_text(encoding="utf-8")


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

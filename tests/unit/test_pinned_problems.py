"""The problems behind published figures: they must not change unnoticed."""

import hashlib
from pathlib import Path

import pytest

from reasonrl import Problem
from reasonrl.plugins import load_plugins
from reasonrl.recipe.load import load_recipe
from reasonrl.recipe.resolved import ResolvedRecipe
from reasonrl.runs.sources import Tasks

RECIPES = Path(__file__).resolve().parents[2] / "recipes"


def _digest(problems: list[Problem]) -> str:
    lines = [f"{problem.info['numbers']} {problem.info['target']}" for problem in problems]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


@pytest.mark.parametrize("name", ["countdown_ppo", "countdown_grpo"])
def test_problems_of_the_countdown_recipes(name: str) -> None:
    plugins = load_plugins()
    resolved = load_recipe(RECIPES / f"{name}.yaml", [], plugins)
    assert isinstance(resolved, ResolvedRecipe)
    tasks = Tasks(plugins, resolved.recipe.seed)
    task = tasks.get(resolved.task)
    digests = {"train": _digest([task.problem("train", index) for index in range(1000)])}
    for suite in ("held_out", "four_numbers"):
        chosen = resolved.suites[suite]
        task = tasks.get(chosen.task)
        problems = [task.problem("eval", index) for index in range(chosen.config.problems)]
        digests[suite] = f"{len(problems)} {_digest(problems)}"
    assert digests == {
        "train": "32030db982b5bfdf",
        "held_out": "1024 7b31327f5b4387a4",
        "four_numbers": "512 f769b65980d5efe1",
    }

"""Entry points of training, torch-free until the recipe has been accepted."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from reasonrl.checkpoint.run_dir import refuse_taken, refuse_unwritable
from reasonrl.errors import RecipeError
from reasonrl.plugins import load_plugins
from reasonrl.recipe.load import load_recipe
from reasonrl.recipe.resolved import ResolvedRecipe, ResolvedSft
from reasonrl.trainer.result import RunResult

if TYPE_CHECKING:
    from reasonrl.observability.reporter import Reporter


def train(
    recipe: str | Path,
    overrides: Sequence[str] = (),
    *,
    run_dir: str | Path | None = None,
    plugin_files: Sequence[str] = (),
    reporter: "Reporter | None" = None,
) -> RunResult:
    """Train by reinforcement learning as a recipe says; see ``reasonrl.run``."""
    plugins = load_plugins(files=plugin_files)
    resolved = load_recipe(recipe, overrides, plugins)
    if not isinstance(resolved, ResolvedRecipe):
        raise RecipeError(f"{recipe} is an SFT recipe; run it with `reasonrl sft {recipe}`")
    refuse_taken(run_dir)
    refuse_unwritable(resolved.recipe.output_dir, run_dir)
    from reasonrl.trainer.rl import run_rl

    return run_rl(resolved, plugins, run_dir=run_dir, reporter=reporter)


def sft(
    recipe: str | Path,
    overrides: Sequence[str] = (),
    *,
    run_dir: str | Path | None = None,
    output: str | Path | None = None,
    plugin_files: Sequence[str] = (),
    reporter: "Reporter | None" = None,
) -> RunResult:
    """Train by imitation: demonstrations of a task, or a JSONL file of prompt/completion.

    ``output`` receives a copy of the final model folder.
    """
    plugins = load_plugins(files=plugin_files)
    resolved = load_recipe(recipe, overrides, plugins)
    if not isinstance(resolved, ResolvedSft):
        raise RecipeError(f"{recipe} has no `sft` section; run it with `reasonrl train {recipe}`")
    refuse_taken(run_dir)
    refuse_unwritable(resolved.recipe.output_dir, run_dir)
    from reasonrl.trainer.sft import run_sft

    return run_sft(resolved, plugins, run_dir=run_dir, output=output, reporter=reporter)

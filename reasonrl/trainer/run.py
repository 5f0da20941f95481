"""Entry points of training, torch-free until the recipe has been accepted."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reasonrl.checkpoint.models import saved_steps, step_dir
from reasonrl.checkpoint.run_dir import refuse_taken, refuse_unwritable
from reasonrl.errors import RecipeError
from reasonrl.plugins import Plugins, load_plugins
from reasonrl.recipe.load import load_recipe
from reasonrl.recipe.resolved import AnyResolved, ResolvedRecipe, ResolvedSft
from reasonrl.trainer.identity import total_steps
from reasonrl.trainer.result import ALREADY_DONE, RunResult
from reasonrl.trainer.resume import finished_summary, read_run
from reasonrl.trainer.run_plugins import load_with
from reasonrl.trainer.signals import stop_signals

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
    return _carry_out(resolved, plugins, reporter, run_dir=run_dir)


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
    return _carry_out(resolved, plugins, reporter, output, run_dir=run_dir)


def resume(
    run_dir: str | Path,
    overrides: Sequence[str] = (),
    *,
    strict: bool = False,
    plugin_files: Sequence[str] = (),
    reporter: "Reporter | None" = None,
) -> RunResult:
    """Go on with a run, of either kind, from its newest checkpoint that verifies; see ``reasonrl.resume``."""
    path = Path(run_dir)
    plugins = load_with(path, plugin_files)
    resolved = read_run(path, overrides, plugins)
    summary = finished_summary(path, total_steps(resolved))
    if summary is not None:
        steps = saved_steps(path)
        model = step_dir(path, steps[-1]) if steps else None
        return RunResult(outcome=ALREADY_DONE, run_dir=path, model_path=model, summary=summary)
    return _carry_out(resolved, plugins, reporter, run_dir=path, resume=True, strict=strict)


def _carry_out(
    resolved: AnyResolved,
    plugins: Plugins,
    reporter: "Reporter | None",
    output: str | Path | None = None,
    **options: Any,
) -> RunResult:
    """Signals are handled from here on: before that there is nothing to lose."""
    with stop_signals() as stop:
        from reasonrl.observability.reporter import SilentReporter
        from reasonrl.trainer.runs import RunOptions

        whole = RunOptions(reporter=reporter or SilentReporter(), stop=stop, **options)
        if isinstance(resolved, ResolvedSft):
            from reasonrl.trainer.sft import run_sft

            return run_sft(resolved, plugins, whole, output=output)
        from reasonrl.trainer.rl import run_rl

        return run_rl(resolved, plugins, whole)

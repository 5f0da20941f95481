"""Entry points of training, torch-free until the recipe has been accepted."""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from reasonrl.errors import RecipeError
from reasonrl.importing import without_collection
from reasonrl.observability.reporter import Lines, Reporter, SilentReporter
from reasonrl.plugins import Plugins, load_plugins
from reasonrl.recipe.load import load_recipe
from reasonrl.recipe.resolved import AnyResolved, ResolvedRecipe, ResolvedSft
from reasonrl.rundir.checkpoints import find_newest_valid
from reasonrl.rundir.layout import find_steps, step_dir
from reasonrl.runs.identity import is_length, total_steps
from reasonrl.runs.outline import outline_run
from reasonrl.runs.plugin_files import load_run_plugins
from reasonrl.runs.ready import refuse_foreign_sharding, refuse_new_run, refuse_unready
from reasonrl.runs.result import ALREADY_DONE, RunResult
from reasonrl.runs.resume import describe_finished, find_finished_summary, read_run
from reasonrl.signals import handle_stop_signals

Forecast = Callable[[AnyResolved, Plugins], Lines]
"""What a run is expected to need, for its header; torch is loaded when it is called."""

RANK_KEYS = ("RANK", "PMI_RANK", "OMPI_COMM_WORLD_RANK", "MV2_COMM_WORLD_RANK")


def no_forecast(_resolved: AnyResolved, _plugins: Plugins) -> Lines:
    """Say nothing."""
    return ()


def train(
    recipe: str | Path,
    overrides: Sequence[str] = (),
    *,
    run_dir: str | Path | None = None,
    plugin_files: Sequence[str] = (),
    reporter: Reporter | None = None,
    forecast: Forecast = no_forecast,
) -> RunResult:
    """Train by reinforcement learning as a recipe says; see ``reasonrl.run``."""
    plugins = load_plugins(files=plugin_files)
    resolved = load_recipe(recipe, overrides, plugins)
    if not isinstance(resolved, ResolvedRecipe):
        raise RecipeError(f"{recipe} is an SFT recipe; run it with `reasonrl sft {recipe}`")
    refuse_new_run(resolved, run_dir)
    return _carry_out(resolved, plugins, reporter, run_dir=run_dir, forecast=forecast)


def sft(
    recipe: str | Path,
    overrides: Sequence[str] = (),
    *,
    run_dir: str | Path | None = None,
    output: str | Path | None = None,
    plugin_files: Sequence[str] = (),
    reporter: Reporter | None = None,
    forecast: Forecast = no_forecast,
) -> RunResult:
    """Train by imitation: demonstrations of a task, or a file of prompts and completions.

    ``output`` receives a copy of the final model folder.
    """
    plugins = load_plugins(files=plugin_files)
    resolved = load_recipe(recipe, overrides, plugins)
    if not isinstance(resolved, ResolvedSft):
        raise RecipeError(f"{recipe} has no `sft` section; run it with `reasonrl train {recipe}`")
    refuse_new_run(resolved, run_dir)
    return _carry_out(resolved, plugins, reporter, output, run_dir=run_dir, forecast=forecast)


def resume(
    run_dir: str | Path,
    overrides: Sequence[str] = (),
    *,
    strict: bool = False,
    plugin_files: Sequence[str] = (),
    reporter: Reporter | None = None,
) -> RunResult:
    """Resume a run of either kind from its newest intact checkpoint; see ``reasonrl.resume``."""
    path = Path(run_dir)
    plugins = load_run_plugins(path, plugin_files)
    resolved = read_run(path, overrides, plugins)
    summary = find_finished_summary(path, total_steps(resolved))
    if summary is not None:
        intact = find_newest_valid(path, strict=strict)
        newest = find_steps([intact])[0][0] if intact is not None else None
        is_asked = any(is_length(override) for override in overrides)
        if newest == summary["steps"] or not is_asked:  # else its end is trained again
            model = step_dir(path, newest) if newest is not None else None
            note = describe_finished(path, resolved, summary["steps"], newest)
            return RunResult(outcome=ALREADY_DONE, run_dir=path, model_path=model, summary=summary, note=note)
    refuse_unready(resolved)
    return _carry_out(resolved, plugins, reporter, run_dir=path, resume=True, strict=strict)


def _carry_out(
    resolved: AnyResolved,
    plugins: Plugins,
    reporter: Reporter | None,
    output: str | Path | None = None,
    *,
    run_dir: str | Path | None,
    resume: bool = False,
    strict: bool = False,
    forecast: Forecast = no_forecast,
) -> RunResult:
    """Signals are handled from here on: before that there is nothing to lose."""
    refuse_foreign_sharding()
    with handle_stop_signals() as stop:
        heard = reporter if reporter is not None and is_first_process() else SilentReporter()
        heard.starting(outline_run(resolved, plugins))
        heard.waiting("loading torch and transformers")
        with without_collection():
            from reasonrl.runs.assemble import execute_run
            from reasonrl.runs.open import RunOptions

        options = RunOptions(
            run_dir=run_dir,
            resume=resume,
            strict=strict,
            reporter=heard,
            stop=stop,
            forecast=forecast(resolved, plugins) if is_first_process() else (),
        )
        return execute_run(resolved, plugins, options, output=output)


def is_first_process(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether this process is rank 0, as the launcher says, before torch could say so."""
    return next((environ[key] for key in RANK_KEYS if environ.get(key)), "0") == "0"

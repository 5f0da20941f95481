"""Entry points of training, torch-free until the recipe has been accepted."""

from collections.abc import Callable, Sequence
from pathlib import Path

from reasonrl.errors import RecipeError
from reasonrl.importing import without_collection
from reasonrl.observability.reporter import Lines, Reporter, SilentReporter
from reasonrl.plugins import Plugins, load_plugins
from reasonrl.recipe.load import load_recipe
from reasonrl.recipe.resolved import AnyResolved, ResolvedRecipe, ResolvedSft
from reasonrl.rundir.checkpoints import find_newest_valid
from reasonrl.rundir.holds import holding
from reasonrl.rundir.layout import find_steps, step_dir
from reasonrl.runs.identity import is_length, total_steps
from reasonrl.runs.launched import is_first_process
from reasonrl.runs.meeting import meeting
from reasonrl.runs.outline import outline_run
from reasonrl.runs.plugin_files import load_run_plugins
from reasonrl.runs.prepared import prepare_new, prepare_resume
from reasonrl.runs.result import ALREADY_DONE, RunResult
from reasonrl.runs.resume import describe_finished, find_finished_summary, read_run
from reasonrl.signals import handle_stop_signals

Forecast = Callable[[AnyResolved, Plugins], Lines]
"""What a run is expected to need, for its header; torch is loaded when it is called."""


def no_forecast(_resolved: AnyResolved, _plugins: Plugins) -> Lines:
    """Say nothing."""
    return ()


@holding()
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
    with meeting() as mine:
        plugins = load_plugins(files=plugin_files)
        resolved = load_recipe(recipe, overrides, plugins)
        if not isinstance(resolved, ResolvedRecipe):
            raise RecipeError(f"{recipe} is an SFT recipe; run it with `reasonrl sft {recipe}`")
        prepare_new(mine, resolved, plugins, run_dir)
    return _carry_out(resolved, plugins, reporter, run_dir=run_dir, forecast=forecast)


@holding()
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
    with meeting() as mine:
        plugins = load_plugins(files=plugin_files)
        resolved = load_recipe(recipe, overrides, plugins)
        if not isinstance(resolved, ResolvedSft):
            raise RecipeError(f"{recipe} has no `sft` section; run it with `reasonrl train {recipe}`")
        prepare_new(mine, resolved, plugins, run_dir)
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
    with meeting() as mine:
        plugins = load_run_plugins(path, plugin_files)
        resolved = read_run(path, overrides, plugins)
        done = _find_done(path, resolved, overrides, strict=strict)
        if done is None:
            prepare_resume(mine, resolved, plugins, path)
    if done is not None:
        return done
    return _carry_out(resolved, plugins, reporter, run_dir=path, resume=True, strict=strict)


def _find_done(path: Path, resolved: AnyResolved, overrides: Sequence[str], *, strict: bool) -> RunResult | None:
    """The result of a run that has nothing left to do."""
    summary = find_finished_summary(path, total_steps(resolved))
    if summary is None:
        return None
    intact = find_newest_valid(path, strict=strict)
    newest = find_steps([intact])[0][0] if intact is not None else None
    if newest != summary["steps"] and any(is_length(override) for override in overrides):
        return None  # its end is trained again
    model = step_dir(path, newest) if newest is not None else None
    note = describe_finished(path, resolved, summary["steps"], newest)
    return RunResult(outcome=ALREADY_DONE, run_dir=path, model_path=model, summary=summary, note=note)


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

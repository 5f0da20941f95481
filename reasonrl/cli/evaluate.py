"""``reasonrl eval``."""

import sys
import time
from collections.abc import Sequence

from reasonrl.cli.ranks import start_missing_ranks
from reasonrl.cli.streams import print_json
from reasonrl.errors import RecipeError
from reasonrl.importing import without_collection
from reasonrl.runs.meeting import meeting
from reasonrl.runs.plugin_files import load_run_plugins
from reasonrl.runs.prepared import describe_start
from reasonrl.runs.targets import find_run, find_target


def run_eval(
    target: str,
    recipe: str | None,
    as_json: bool,
    output: str | None,
    plugin_files: Sequence[str],
    overrides: Sequence[str] = (),
    *,
    strict: bool = False,
) -> None:
    """Evaluate a model on the recipe's suites, print the results and save them to ``output``.

    Several processes share the problems; the first one prints and saves.
    """
    start_missing_ranks()
    from reasonrl.cli.waiting import open_progress
    from reasonrl.runs.saved_evaluation import prepare_output, save_evaluation

    with meeting() as mine:
        plugins = load_run_plugins(find_run(target), plugin_files)
        found = find_target(target, recipe, plugins, overrides, strict=strict)
        if not found.resolved.suites:
            raise RecipeError(f"the recipe of {target} has no evaluation.suites; add one, or use another with --recipe")
        mine.facts = describe_start(found.resolved, plugins)
    with meeting():
        folder = None if output is None else prepare_output(output)
    started = time.monotonic()
    with open_progress(found.resolved, "eval") as progress:
        with without_collection():
            from accelerate import PartialState

            from reasonrl.runs.ask import evaluate_model

        results = evaluate_model(found, plugins, progress)
    if not PartialState().is_main_process:
        return
    seconds = time.monotonic() - started
    if as_json:
        print_json({r.name: r.to_json() for r in results})
    else:
        from reasonrl.cli.console import ConsoleReporter

        ConsoleReporter().evaluated_model(found.model_path, results)
    if folder is not None:
        save_evaluation(folder, target, found, results, seconds)
        if not as_json:
            sys.stdout.write(f"saved to {folder}; to compare: reasonrl compare {folder} OTHER\n")

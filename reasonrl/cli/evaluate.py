"""``reasonrl eval``."""

import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from reasonrl.cli.ranks import start_missing_ranks
from reasonrl.cli.streams import print_json
from reasonrl.errors import RecipeError
from reasonrl.importing import without_collection
from reasonrl.plugins import Plugins
from reasonrl.rundir.holds import holding
from reasonrl.rundir.new_folder import explain_failure
from reasonrl.runs.meeting import meeting
from reasonrl.runs.plugin_files import load_run_plugins
from reasonrl.runs.prepared import describe_start
from reasonrl.runs.targets import Target, find_run, find_target

if TYPE_CHECKING:
    from reasonrl.evaluation.suites import SuiteResult


@holding()
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
    from reasonrl.runs.saved_evaluation import open_output, save_evaluation

    with meeting() as mine:
        plugins = load_run_plugins(find_run(target), plugin_files)
        found = find_target(target, recipe, plugins, overrides, strict=strict)
        if not found.resolved.suites:
            raise RecipeError(f"the recipe of {target} has no evaluation.suites; add one, or use another with --recipe")
        mine.facts = describe_start(found.resolved, plugins)
    started = time.monotonic()
    with ExitStack() as opened:
        with meeting():
            folder = opened.enter_context(open_output(output))
        results = _evaluate(found, plugins, as_json)
        if folder is not None and results is not None:
            with explain_failure(Path(str(output)), what="evaluation", flag="--output"):
                save_evaluation(folder, target, found, results, time.monotonic() - started)
    if folder is not None and not as_json:
        sys.stdout.write(f"saved to {output}; to compare: reasonrl compare {output} OTHER\n")


def _evaluate(found: Target, plugins: Plugins, as_json: bool) -> "Sequence[SuiteResult] | None":
    """Evaluate and print; None in all processes but the first."""
    from reasonrl.cli.waiting import open_progress

    with open_progress(found.resolved, "eval") as progress:
        with without_collection():
            from accelerate import PartialState

            from reasonrl.runs.ask import evaluate_model

        results = evaluate_model(found, plugins, progress)
    if not PartialState().is_main_process:
        return None
    if as_json:
        print_json({r.name: r.to_json() for r in results})
    else:
        from reasonrl.cli.console import ConsoleReporter

        ConsoleReporter().evaluated_model(found.model_path, results)
    return results

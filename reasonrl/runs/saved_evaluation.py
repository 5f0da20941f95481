"""Save an evaluation in a folder: results in the fields of lm-evaluation-harness, and every completion."""

import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from reasonrl.errors import RecipeError
from reasonrl.evaluation.suites import SuiteResult
from reasonrl.observability.transcripts import transcript_records
from reasonrl.recipe.render import render_plain
from reasonrl.recipe.resolved import AnyResolved
from reasonrl.redact import redact_text
from reasonrl.rundir import files
from reasonrl.rundir.jsonl import write_jsonl
from reasonrl.rundir.layout import RESULTS, RUN, completions_file, is_data_of_run
from reasonrl.rundir.new_folder import new_folder
from reasonrl.rundir.reading import read_object
from reasonrl.runs.launched import is_first_process
from reasonrl.runs.targets import Target, find_run
from reasonrl.version import __version__

log = logging.getLogger(__name__)

LOWER_IS_BETTER = ("truncated_frac", "unscored_frac")
NEITHER = ("length_tokens",)


@contextmanager
def open_output(target: str | Path | None) -> Iterator[Path | None]:
    """Open a folder to write to, before anything slow is done, which becomes ``target`` if the block ends well.

    Yields None without a target, and in all processes but the first, which saves.

    Raises:
        RecipeError: If the target has content, or cannot be made.
    """
    if target is None or not is_first_process():
        yield None
        return
    path = Path(target)
    if is_data_of_run(path):
        raise RecipeError(f"--output: {target} lies among a run's own files; name another folder")
    with ExitStack() as stack:
        try:
            is_empty = not os.path.lexists(path) or not any(path.iterdir())
            folder = stack.enter_context(new_folder(path)) if is_empty else None
        except OSError as err:
            raise RecipeError(f"--output: cannot create {target}: {err.strerror or err}; name another folder") from err
        if folder is None:
            raise RecipeError(f"--output: {target} is not empty; name a new folder")
        yield folder


def save_evaluation(folder: Path, name: str, target: Target, results: Sequence[SuiteResult], seconds: float) -> None:
    """Write ``<suite>.jsonl`` for every suite, then ``results.json``. ``name``: the target as the user gave it."""
    for result in results:
        write_jsonl(completions_file(folder, result.name), transcript_records(result.groups))
    data = results_json(name, target, results, seconds)
    files.write_json(folder / RESULTS, data)


def results_json(name: str, target: Target, results: Sequence[SuiteResult], seconds: float) -> dict[str, Any]:
    """Results as lm-evaluation-harness writes them, with reasonrl's own under ``reasonrl``."""
    recipe = render_plain(target.resolved)
    by_suite = {result.name: result for result in results}
    model = redact_text(target.model_path)
    return {
        "results": {suite: _figures(result) for suite, result in by_suite.items()},
        "group_subtasks": {suite: [] for suite in by_suite},
        "configs": {suite: _config(suite, target.resolved, recipe) for suite in by_suite},
        "versions": dict.fromkeys(by_suite, __version__),
        "n-shot": dict.fromkeys(by_suite, 0),
        "higher_is_better": {suite: _directions(result) for suite, result in by_suite.items()},
        "n-samples": {s: {"original": r.problems, "effective": r.problems} for s, r in by_suite.items()},
        "config": {
            "model": "reasonrl",
            "model_args": f"pretrained={model}",
            "random_seed": target.resolved.recipe.seed,
            "recipe": recipe,
            "trained": _training_recipe(name),
        },
        "reasonrl": {suite: result.to_json() for suite, result in by_suite.items()},
        "reasonrl_version": __version__,
        "model_source": "reasonrl",
        "model_name": redact_text(name),
        "date": time.time(),
        "total_evaluation_time_seconds": str(seconds),
    }


def _figures(result: SuiteResult) -> dict[str, Any]:
    """``exact_match`` is the accuracy; every other metric has its own name. All have the filter ``none``."""
    figures: dict[str, Any] = {"alias": result.name}
    for key, value in result.metrics.items():
        name = "exact_match" if key == "accuracy" else key
        figures[f"{name},none"] = value
        figures[f"{name}_stderr,none"] = result.errors.get(key, "N/A")
    return figures


def _directions(result: SuiteResult) -> dict[str, bool]:
    names = {key: "exact_match" if key == "accuracy" else key for key in result.metrics if key not in NEITHER}
    return {name: key not in LOWER_IS_BETTER for key, name in names.items()}


def _config(suite: str, resolved: AnyResolved, recipe: Mapping[str, Any]) -> dict[str, Any]:
    settings = recipe["evaluation"]["suites"][suite]
    task = settings["task"]
    limit = settings["max_completion_tokens"] or recipe["sampling"]["max_completion_tokens"]
    return {
        "task": suite,
        "dataset_path": task.get("path") or task["name"],
        "dataset_name": task.get("subset"),
        "output_type": "generate_until",
        "num_fewshot": 0,
        "repeats": settings["samples"],
        "generation_kwargs": {
            "do_sample": settings["temperature"] > 0,
            "temperature": settings["temperature"],
            "top_p": settings["top_p"],
            "top_k": settings["top_k"],
            "max_gen_toks": limit,
            "until": recipe["sampling"]["stop"],
        },
        "metadata": {"task": task, "rewards": list(resolved.suites[suite].rewards)},
    }


def _training_recipe(name: str) -> Mapping[str, Any] | None:
    """The recipe of the run that the model is from; None for other models."""
    run = find_run(name)
    if run is None:
        return None
    try:
        recipe: Mapping[str, Any] | None = read_object(run / RUN).get("recipe")
    except (OSError, ValueError) as err:
        log.warning("%s: %s; the results do not name the recipe that the model was trained with", run / RUN, err)
        return None
    return recipe

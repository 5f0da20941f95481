"""Read evaluations: which problems of each suite were solved, and the recipe behind them."""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reasonrl.errors import RecipeError
from reasonrl.redact import redacting_logger
from reasonrl.rundir.evaluations import list_evaluations, read_object, read_suites
from reasonrl.rundir.jsonl import read_jsonl
from reasonrl.rundir.layout import RESULTS, RUN, completions_file, eval_dir, is_evaluation, is_run, list_members

log = redacting_logger(__name__)

Solved = Mapping[str, float]
"""Problem -> share of its completions that are correct. A problem is known by its content, not by its number."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluation:
    """One evaluation. ``step`` is None unless it belongs to a run; ``folder`` holds the completions."""

    name: str
    folder: Path
    recipe: Mapping[str, Any]
    suites: Mapping[str, Any]
    """Name -> figures, as in the summary of an evaluation."""
    run_dir: Path | None = None
    step: int | None = None

    @property
    def seed(self) -> object:
        """The seed of the recipe."""
        return self.recipe.get("seed")

    def solved(self, suite: str) -> Solved:
        """Read the completions of a suite.

        Raises:
            RecipeError: If they are missing or corrupted.
        """
        file = completions_file(self.folder, suite)
        try:
            solved, count = _solved(read_jsonl(file))
            figures = self.suites[suite]
            expected = figures.get("problems", 0) * figures.get("samples", 1)
            if count < expected:
                log.warning(
                    "%s has lost %d of %d completions; only the rest is compared", file, expected - count, expected
                )
            return solved
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as err:
            reason = err.strerror if isinstance(err, OSError) else "not the completions of an evaluation"
            raise RecipeError(f"cannot read {file}: {reason}; evaluate again with reasonrl eval --output") from err


def read_evaluation(target: str) -> Evaluation:
    """Read ``RUN``, its last evaluation; ``RUN@STEP``; or the folder of a saved evaluation.

    Raises:
        RecipeError: If there is no such evaluation.
    """
    name, _, step = target.rpartition("@")
    if name and step.isascii() and step.isdecimal() and len(step) < 19 and not os.path.exists(target):
        return _of_run(target, Path(name), int(step))
    if is_evaluation(folder := Path(target)):
        return _saved(target, folder)
    return _of_run(target, folder, None)


def read_evaluations(targets: Sequence[str]) -> tuple[list[Evaluation], list[str]]:
    """Read every target, and of a folder of runs, such as a sweep, all that it holds.

    Returns:
        The evaluations, and the runs in folders that have none yet. What is named before its folder, as what the
        others are compared with, is not repeated.

    Raises:
        RecipeError: If a target is neither a run nor a saved evaluation nor a folder of them.
    """
    found: list[Evaluation] = []
    young: list[str] = []
    for target in targets:
        members = list_members(Path(target))
        if not members:
            found.append(read_evaluation(target))
        for member in members:
            if is_run(member) and not list_evaluations(member):
                young.append(str(member))
            elif (one := read_evaluation(str(member))).folder.resolve() not in [e.folder.resolve() for e in found]:
                found.append(one)
    return found, young


def _of_run(name: str, run_dir: Path, step: int | None) -> Evaluation:
    if not is_run(run_dir):
        what = "there is no such folder" if not os.path.exists(run_dir) else f"it holds neither {RUN} nor {RESULTS}"
        raise RecipeError(f"{run_dir} is not a run or a saved evaluation: {what}")
    steps = [number for number, _ in list_evaluations(run_dir)]
    if not steps:
        raise RecipeError(f"{run_dir} has no evaluations; use reasonrl eval {run_dir} --output DIR, and compare DIR")
    if step is not None and step not in steps:
        raise RecipeError(f"{run_dir} has no evaluation at step {step}; its steps: {', '.join(map(str, steps))}")
    chosen = steps[-1] if step is None else step
    folder = eval_dir(run_dir, chosen)
    return Evaluation(
        name=name,
        folder=folder,
        recipe=_mapping(read_object(run_dir / RUN), "recipe", run_dir / RUN),
        suites=read_suites(folder),
        run_dir=run_dir,
        step=chosen,
    )


def _saved(name: str, folder: Path) -> Evaluation:
    """Its recipe is that of the training run, if there was one, with the suites that were evaluated."""
    file = folder / RESULTS
    data = read_object(file)
    config = _mapping(data, "config", file)
    asked = _mapping(config, "recipe", file)
    trained = config.get("trained")
    recipe = {**trained, "evaluation": asked.get("evaluation")} if isinstance(trained, dict) else asked
    figures = data.get("reasonrl")
    suites = {
        suite: figures.get(suite, {}) if isinstance(figures, dict) else {} for suite in _mapping(data, "results", file)
    }
    return Evaluation(name=name, folder=folder, recipe=recipe, suites=suites)


def _mapping(data: Mapping[str, Any], key: str, path: Path) -> Mapping[str, Any]:
    value = data.get(key)
    if not isinstance(value, dict):
        raise RecipeError(f"cannot read {path}: it has no {key}, so it was not written by reasonrl")
    return value


def _solved(records: Iterable[Mapping[str, Any]]) -> tuple[Solved, int]:
    """The problems, and the number of completions."""
    correct: dict[str, list[bool]] = {}
    contents: dict[str, str] = {}
    for record in records:
        problem = str(record["problem_id"])
        contents.setdefault(problem, _content(record))
        correct.setdefault(problem, []).append(bool(record["correct"]))
    seen: Counter[str] = Counter()
    solved: dict[str, float] = {}
    for problem, samples in correct.items():
        content = contents[problem]
        seen[content] += 1
        solved[f"{content}/{seen[content]}"] = sum(samples) / len(samples)
    return solved, sum(map(len, correct.values()))


def _content(record: Mapping[str, Any]) -> str:
    """Hash the problem: what rewards see of it; its prompt if that is nothing. Prompts may differ by template."""
    text = json.dumps(record.get("info") or record["prompt"], sort_keys=True)
    return hashlib.blake2b(text.encode("utf-8", "backslashreplace"), digest_size=16).hexdigest()

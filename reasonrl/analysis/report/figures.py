"""What a report says about one run: its curves, evaluations, settings and diagnosis, without the completions."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reasonrl.analysis.behaviors import Timeline, read_evaluations, read_timelines
from reasonrl.analysis.doctor import Diagnosis, diagnose
from reasonrl.analysis.doctor.curve import Curve
from reasonrl.analysis.doctor.records import RunRecords, number, read_run
from reasonrl.analysis.report.series import Point, Series
from reasonrl.errors import RecipeError
from reasonrl.rundir.differences import flatten, without_seed


@dataclass(frozen=True, kw_only=True, slots=True)
class RunFigures:
    """One run. ``evaluations``: step and suites, oldest first. ``notes``: what could not be read."""

    path: Path
    state: str
    last_step: int
    manifest: Mapping[str, Any]
    summary: Mapping[str, Any]
    curves: Mapping[str, Curve]
    evaluations: Sequence[tuple[int, Mapping[str, Any]]]
    behaviors: Sequence[Timeline]
    diagnosis: Diagnosis
    notes: Sequence[str] = ()

    @property
    def label(self) -> str:
        """The name of the run's folder."""
        return self.path.resolve().name

    @property
    def recipe(self) -> Mapping[str, Any]:
        """Return the recipe with every value in force; empty if run.json is damaged."""
        found = self.manifest.get("recipe")
        return found if isinstance(found, Mapping) else {}

    @property
    def settings(self) -> dict[str, Any]:
        """The recipe as dotted keys."""
        return flatten(self.recipe)

    @property
    def suites(self) -> list[str]:
        """Every suite that was evaluated, in the recipe's order."""
        return list(dict.fromkeys(name for _, suites in self.evaluations for name in suites))

    def accuracy(self, suite: str) -> Series:
        """Held-out accuracy with its 95% interval."""
        found = ((step, _interval(suites.get(suite))) for step, suites in self.evaluations)
        return tuple(Point(step, *known) for step, known in found if known is not None)

    def task_of(self, source: str) -> str:
        """The task of a suite's problems, or of training; empty if there is none."""
        settings = self.settings
        return str(settings.get(f"evaluation.suites.{source}.task.name") or settings.get("task.name") or "")

    def timelines(self, suite: str) -> list[Timeline]:
        """Behaviors of one suite: one timeline, or none."""
        return [timeline for timeline in self.behaviors if timeline.suite == suite]

    def experiment(self) -> dict[str, Any]:
        """The settings that all seeds of one experiment share."""
        return flatten(without_seed(self.recipe))


def read_figures(run_dir: Path, *, is_over: bool = False) -> RunFigures:
    """Read a run, which may still be training. Checkpoints are checked by size only.

    Args:
        is_over: the caller holds the lock of a run that has ended.

    Raises:
        RecipeError: If ``run_dir`` is not a run folder.
    """
    records = read_run(run_dir, deep=False, is_over=is_over)
    notes = list(records.problems)
    return RunFigures(
        path=run_dir,
        state=records.state,
        last_step=records.last_step,
        manifest=records.manifest,
        summary=records.summary or {},
        curves=_curves(records),
        evaluations=_attempt(lambda: read_evaluations(run_dir), notes),
        behaviors=_attempt(lambda: read_timelines(run_dir), []),
        diagnosis=diagnose(records),
        notes=notes,
    )


def _curves(records: RunRecords) -> dict[str, Curve]:
    found = {key: records.curve(key) for key in sorted(records.measured - {"step"})}
    return {key: curve for key, curve in found.items() if len(curve)}


def _attempt(read: Any, notes: list[str]) -> Any:
    """Read what a young or damaged run may not have."""
    try:
        return read()
    except RecipeError as err:
        if "no evaluations yet" not in str(err):
            notes.append(str(err))
        return ()


def _interval(suite: object) -> tuple[float, float, float] | None:
    if not isinstance(suite, Mapping):
        return None
    ends = suite.get("ci95")
    low, high = ends if isinstance(ends, list) and len(ends) == 2 else (math.nan, math.nan)
    known = [number(value) for value in (suite.get("accuracy"), low, high)]
    if known[0] is None:
        return None
    return known[0], known[0] if known[1] is None else known[1], known[0] if known[2] is None else known[2]

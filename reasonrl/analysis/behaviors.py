"""Behaviors over the course of a run, read from its evaluation summaries."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reasonrl.errors import RecipeError
from reasonrl.rundir.evaluations import list_evaluations, read_suites
from reasonrl.rundir.layout import RUN, is_run

OF_THE_SUITE = ("accuracy", "length_tokens")
FIRST_ROWS = (*OF_THE_SUITE, "length_tokens_correct", "length_tokens_wrong")
LAST_ROWS = ("keyword_", "failed_frac")


@dataclass(frozen=True, kw_only=True, slots=True)
class Timeline:
    """Behaviors of one suite: ``rows[name][i]`` belongs to ``steps[i]``; None if a behavior does not apply."""

    suite: str
    problems: int
    samples: int
    steps: tuple[int, ...]
    rows: Mapping[str, tuple[float | None, ...]]

    def to_json(self) -> dict[str, object]:
        return {
            "suite": self.suite,
            "problems": self.problems,
            "samples": self.samples,
            "steps": list(self.steps),
            "behaviors": {name: list(values) for name, values in self.rows.items()},
        }


def read_timelines(run_dir: str | Path, suite: str | None = None) -> list[Timeline]:
    """Read one timeline per suite of a run, or only that of ``suite``. The run may still be training.

    Raises:
        RecipeError: If there is no such run or suite, or no evaluation yet.
    """
    evaluations = read_evaluations(Path(run_dir))
    names = list(dict.fromkeys(name for _, suites in evaluations for name in suites))
    if suite is not None and suite not in names:
        raise RecipeError(f"{run_dir} has no suite {suite!r}; its suites: {', '.join(names)}")
    timelines = [_timeline(name, evaluations) for name in ([suite] if suite is not None else names)]
    if not any(set(timeline.rows) - set(OF_THE_SUITE) for timeline in timelines):
        raise RecipeError(f"the evaluations of {run_dir} have no behaviors (written by an older reasonrl); train again")
    return timelines


def read_evaluations(run_dir: Path) -> list[tuple[int, Mapping[str, Any]]]:
    """Read step and suites of every evaluation, oldest first.

    Raises:
        RecipeError: If there is no such run, or no evaluation yet.
    """
    if not is_run(run_dir):
        raise RecipeError(f"{run_dir} is not a run folder (no {RUN})")
    found = [(step, read_suites(folder)) for step, folder in list_evaluations(run_dir)]
    if not found:
        raise RecipeError(f"{run_dir} has no evaluations yet; behaviors are measured on the recipe's evaluation.suites")
    return found


def _timeline(name: str, evaluations: Sequence[tuple[int, Mapping[str, Any]]]) -> Timeline:
    measured = [(step, suites[name]) for step, suites in evaluations if name in suites]
    figures = [_figures(suite) for _, suite in measured]
    names = list(dict.fromkeys(key for one in figures for key in one))
    return Timeline(
        suite=name,
        problems=measured[-1][1].get("problems", 0),
        samples=measured[-1][1].get("samples", 1),
        steps=tuple(step for step, _ in measured),
        rows={key: tuple(one.get(key) for one in figures) for key in sorted(names, key=_place)},
    )


def _place(name: str) -> tuple[int, int, str]:
    """Sort key of a row: suite metrics first, keyword lists last, the same in every run."""
    if name in FIRST_ROWS:
        return 0, FIRST_ROWS.index(name), name
    return 2 if name.startswith(LAST_ROWS) else 1, 0, name


def _figures(suite: Mapping[str, object]) -> dict[str, float]:
    behavior = suite.get("behavior")
    own = behavior if isinstance(behavior, dict) else {}
    chosen = {**{key: suite.get(key) for key in OF_THE_SUITE}, **own}
    return {key: float(value) for key, value in chosen.items() if isinstance(value, int | float)}

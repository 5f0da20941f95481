"""Read the evaluations that a run has finished, and JSON objects of a run folder."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reasonrl.errors import RecipeError
from reasonrl.rundir import reading
from reasonrl.rundir.layout import EVALS, SUMMARY, find_steps


def read_object(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        RecipeError: If it is not one.
    """
    try:
        return reading.read_object(path)
    except (OSError, ValueError) as err:
        raise RecipeError(f"cannot read {path}: {err}; restore it from a backup") from err


def list_evaluations(run_dir: Path) -> list[tuple[int, Path]]:
    """List step and folder of every finished evaluation, oldest first: its summary is written last."""
    found = find_steps((run_dir / EVALS).glob("*"))
    return [(step, folder) for step, folder in found if (folder / SUMMARY).is_file()]


def read_suites(folder: Path) -> Mapping[str, Mapping[str, Any]]:
    """Read the figures of every suite of an evaluation.

    Raises:
        RecipeError: If its summary is corrupted.
    """
    suites = read_object(folder / SUMMARY)
    if not all(isinstance(suite, dict) for suite in suites.values()):
        raise RecipeError(f"cannot read {folder / SUMMARY}: expected an object of suites")
    return suites

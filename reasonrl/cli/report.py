"""``reasonrl report``."""

import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import typer

from reasonrl.cli.table import for_terminal
from reasonrl.errors import RecipeError
from reasonrl.rundir.folder import is_locked
from reasonrl.rundir.layout import EVALS, METRICS, REPORT, SUMMARY, is_run, list_members
from reasonrl.signals import StopRequested

POLL_S = 5.0


def run_report(runs: Sequence[str], output: str | None, samples: int | None, watch: bool) -> None:
    """Write one HTML file about one or several runs.

    Raises:
        RecipeError: If an argument is wrong or the file cannot be written.
    """
    folders = list(dict.fromkeys(folder for run in runs for folder in _expand(Path(run))))
    path = _choose_output(folders, output)
    if watch:
        _watch(folders, path, samples)
    else:
        _write(folders, path, samples)
    typer.echo(for_terminal(f"report: {path} ({path.stat().st_size / 1e6:.1f} MB)"))


def tell_report(run_dir: Path | None) -> None:
    """Name the report that a run has written at its end."""
    if run_dir is not None and (path := run_dir / REPORT).is_file():
        typer.echo(for_terminal(f"report: {path}"))


def _expand(path: Path) -> list[Path]:
    """Return the run itself, or the runs in a folder of runs. What is neither is refused when it is read."""
    return [member for member in list_members(path) if is_run(member)] or [path]


def _choose_output(folders: Sequence[Path], output: str | None) -> Path:
    from reasonrl.analysis.report import is_report

    path = Path(output) if output else folders[0] / REPORT if len(folders) == 1 else Path(REPORT)
    if output == "" or os.path.isdir(path):
        raise RecipeError(f"--output {path}: expected a file, got a folder; name one, such as {path / REPORT}")
    if os.path.exists(path) and not is_report(path):
        raise RecipeError(f"{path} exists and is not a report; choose another file with --output FILE")
    return path


def _write(folders: Sequence[Path], path: Path, samples: int | None, *, refresh: bool = False) -> None:
    from reasonrl.analysis.report import write_report
    from reasonrl.plugins import load_plugins

    try:
        write_report(folders, path, samples=samples, refresh=refresh, marks=load_plugins().task_marks())
    except OSError as err:
        raise RecipeError(
            f"cannot write {path}: {err.strerror or err}; choose another file with --output FILE"
        ) from err


def _watch(folders: Sequence[Path], path: Path, samples: int | None) -> None:
    """Write the report whenever a run has something new, until all runs have ended or Ctrl-C."""
    seen: object = None
    try:
        while any(is_locked(folder) for folder in folders):
            if (now := list(_stamps(folders))) != seen:
                _write(folders, path, samples, refresh=True)
                if seen is None:
                    typer.echo(for_terminal(f"watching; open {path} in a browser, it refreshes itself; Ctrl-C ends"))
                seen = now
            time.sleep(POLL_S)
    except StopRequested:
        raise
    except KeyboardInterrupt:
        pass
    _write(folders, path, samples)


def _stamps(folders: Sequence[Path]) -> Iterator[tuple[str, int, int]]:
    """Yield what changes with every step, evaluation and end of a run."""
    for folder in folders:
        for path in (folder / METRICS, folder / EVALS, folder / SUMMARY):
            try:
                known = path.stat()
            except OSError:  # not written yet, or deleted by a resumed run
                continue
            yield str(path), known.st_mtime_ns, known.st_size

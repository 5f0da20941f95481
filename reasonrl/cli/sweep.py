"""``reasonrl sweep``."""

import os
import shlex
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import typer

from reasonrl.cli.table import for_terminal, table
from reasonrl.errors import RecipeError
from reasonrl.plugins import load_plugins
from reasonrl.runs.jobs import Ended, Heard, carry_out, read_step
from reasonrl.runs.launched import lacks_other_ranks
from reasonrl.runs.sweep import SweepRun, plan_sweep

EXIT_FAILED, EXIT_IN_USE = 1, 3
SHOWN = 3
"""Runs in progress that the status line names."""


def run_sweep(
    recipe: str,
    words: Sequence[str],
    folder: str | None,
    *,
    jobs: int,
    only: int | None,
    dry_run: bool,
    plugin_files: Sequence[str],
) -> None:
    """Train every point that is not finished, and say how each ended.

    Raises:
        RecipeError: If a point is wrong. Nothing has started then.
    """
    from reasonrl.cli.waiting import open_spinner

    _refuse_ranks()
    with open_spinner("checking the points"):
        home, runs = plan_sweep(
            recipe, words, load_plugins(files=plugin_files), folder=folder, plugin_files=plugin_files, only=only
        )
    if dry_run:
        rows = [(str(run.number), run.state, run.name) for run in runs]
        typer.echo("\n".join([f"{_count(runs, 'point')} in {home}", *table(("N", "STATE", "POINT"), rows)]))
        return
    command = ["reasonrl", "sweep", recipe, *words, *(["--dir", folder] if folder else [])]
    command += ["--jobs", str(jobs)] if jobs > 1 else []
    command += [word for file in plugin_files for word in ("--plugin", file)]
    raise typer.Exit(_carry_out(home, runs, jobs, shlex.join(command)))


def _count(runs: Sequence[SweepRun], what: str) -> str:
    return f"{len(runs)} {what}{'s' * (len(runs) != 1)}"


def _refuse_ranks() -> None:
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 or lacks_other_ranks(os.environ):
        raise RecipeError("sweep starts a process for each run; start it without accelerate launch or torchrun")


def _carry_out(home: Path, runs: Sequence[SweepRun], jobs: int, command: str) -> int:
    todo = [run for run in runs if run.state in ("missing", "unfinished")]
    done = len(runs) - len(todo)
    typer.echo(for_terminal(f"{_count(runs, 'run')} in {home}" + (f", {done} finished or in progress" if done else "")))
    with closing(_Progress()) as progress:
        ended, signum = carry_out(todo, jobs, progress.heard)
    for line in _result(home, runs, ended, command):
        typer.echo(for_terminal(line))
    if signum:
        return 128 + signum
    if any(one.ending == "failed" for one in ended):
        return EXIT_FAILED
    return EXIT_IN_USE if any(run.state == "running" for run in runs) else 0


class _Progress:
    """A line when a run starts and ends; in a terminal also a status line."""

    def __init__(self) -> None:
        from rich.console import Console

        from reasonrl.cli.waiting import Waiting

        console = Console(stderr=True, highlight=False)
        self._waiting = Waiting(console) if console.is_terminal else None
        self._shown_at, self._is_stopping = 0.0, False
        self.heard = Heard(started=self._started, ended=self._ended, active=self._active, stopping=self._stopping)

    def close(self) -> None:
        if self._waiting is not None:
            self._waiting.stop()

    def _print(self, text: str) -> None:
        self.close()
        typer.echo(for_terminal(text))

    def _started(self, run: SweepRun) -> None:
        verb = "resumed" if run.state == "unfinished" else "started"
        self._print(f"[{run.number}/{run.total}] {run.name}: {verb}")

    def _ended(self, one: Ended) -> None:
        self._print(f"[{one.run.number}/{one.run.total}] {one.run.name}: {one.ending} after {one.seconds:.0f} s")

    def _active(self, runs: Sequence[SweepRun]) -> None:
        now = time.monotonic()
        if self._waiting is not None and now - self._shown_at > 1:
            self._shown_at = now
            steps = [f"{run.name} at step {read_step(run)}" for run in runs[:SHOWN]]
            self._waiting.show(", ".join([*steps, *([f"{len(runs) - SHOWN} more"] if len(runs) > SHOWN else [])]))

    def _stopping(self, count: int) -> None:
        if not self._is_stopping:
            self._is_stopping = True
            self._print(f"stopping {count} runs, which save first; Ctrl-C again ends them at once")


def _result(home: Path, runs: Sequence[SweepRun], ended: Sequence[Ended], command: str) -> Iterator[str]:
    endings = {one.run.number: one.ending for one in ended}
    states = [endings.get(run.number, run.state) for run in runs]
    counts = {state: states.count(state) for state in ("finished", "failed", "stopped", "unfinished", "running")}
    counts["not started"] = states.count("missing")
    yield ""
    yield f"{home}: " + ", ".join(f"{count} {state}" for state, count in counts.items() if count)
    for one in ended:
        if one.ending == "failed":
            yield f"  {one.run.name} failed with exit status {one.code}: {one.reason}; log: {one.run.log}"
    for run in runs:
        if run.state == "running":
            yield f"  {run.name} is in progress in another process"
    if counts["finished"] < len(runs):
        yield f"to resume: {command}"
    if counts["finished"]:
        yield f"results: reasonrl report {home}; reasonrl compare {home}"

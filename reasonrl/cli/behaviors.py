"""``reasonrl behaviors``."""

from collections.abc import Iterator

import typer

from reasonrl.analysis.behaviors import Timeline, read_timelines
from reasonrl.cli.streams import print_json
from reasonrl.cli.table import terminal_width, wrap
from reasonrl.cli.waiting import open_spinner
from reasonrl.statistics.spacing import pick_evenly

CELL = 7
MAX_NAME = 32


def run_behaviors(run_dir: str, suite: str | None, as_json: bool) -> None:
    """Print the behaviors of a run's completions, from the first evaluation to the last."""
    with open_spinner(f"reading {run_dir}"):
        timelines = read_timelines(run_dir, suite)
    if as_json:
        print_json([timeline.to_json() for timeline in timelines])
        return
    typer.echo("\n\n".join("\n".join(lines_of(timeline)) for timeline in timelines))


def lines_of(timeline: Timeline) -> Iterator[str]:
    """Format a table with one row per behavior and as many steps as fit the terminal.

    Keyword lists without a hit are named below it.
    """
    unused = [name for name, values in timeline.rows.items() if name.startswith("keyword_") and not any(values)]
    rows = {name: values for name, values in timeline.rows.items() if name not in unused}
    width = min(MAX_NAME, max(len(name) for name in ("step", *rows)))
    shown = pick_evenly(len(timeline.steps), max(1, (terminal_width() - width) // (CELL + 1)))
    hidden = len(timeline.steps) - len(shown)
    more = f"; {hidden} more evaluations with --json" if hidden else ""
    yield f"{timeline.suite}: {timeline.problems} problems x {timeline.samples}{more}"
    yield _line("step", width, [str(timeline.steps[i]) for i in shown])
    for name, values in rows.items():
        yield _line(name, width, [_cell(values[i]) for i in shown])
    lists = [name.removeprefix("keyword_") for name in unused if not name.endswith("_hits")]
    if lists:
        yield wrap(f"keyword lists without a hit: {', '.join(lists)}")


def _line(name: str, width: int, cells: list[str]) -> str:
    name = name if len(name) <= width else name[: width - 3] + "..."
    return f"{name:<{width}}" + "".join(f" {cell:>{CELL}}" for cell in cells)


def _cell(value: float | None) -> str:
    if value is None:
        return "-"
    if abs(value) >= 100:
        return f"{value:.0f}" if abs(value) < 1e6 else f"{value:.1e}"
    return f"{value:.3f}" if abs(value) <= 1 else f"{value:.2f}"

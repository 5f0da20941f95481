"""``reasonrl plan``: memory, time and money of a recipe, before it runs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import typer

from reasonrl.cli.table import wrap
from reasonrl.plugins import load_plugins
from reasonrl.recipe.load import check_recipe

if TYPE_CHECKING:
    from reasonrl.planning.plan import Plan


def run_plan(
    recipe: str,
    overrides: Sequence[str],
    gpu: str | None,
    gpus: int,
    sharding: str,
    price: float | None,
    as_json: bool,
    plugin_files: Sequence[str],
) -> None:
    """Print the plan of a recipe."""
    from reasonrl.planning.gpus import find_gpu

    found = find_gpu(gpu) if gpu is not None else None  # before torch is loaded
    plugins = load_plugins(files=plugin_files)
    resolved = check_recipe(recipe, overrides, plugins)
    from reasonrl.planning.here import find_target
    from reasonrl.planning.plan import make_plan

    plan = make_plan(resolved, plugins, find_target(found, gpus, sharding), price=price)
    if as_json:
        typer.echo(json.dumps(plan.to_json(), indent=2))
        return
    for line in describe(plan):
        typer.echo(line)


def describe(plan: Plan) -> Iterator[str]:
    """Lines of at most 80 columns where the names are short."""
    from reasonrl.planning.text import head_lines, memory_rows, summary_lines

    for label, text in head_lines(plan):
        yield wrap(text, lead=f"{label:<12}", indent=" " * 12)
    yield ""
    for first, *cells in memory_rows(plan):
        yield f"{first:<16}" + "".join(f"{cell:>12}" for cell in cells)
    yield ""
    for label, text in summary_lines(plan):
        yield wrap(text, lead=f"{label:<12}", indent=" " * 12)

"""``reasonrl plan``: memory, time and money of a recipe, before it runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from typing import TYPE_CHECKING

import typer

from reasonrl.cli.streams import print_json
from reasonrl.cli.table import wrap
from reasonrl.cli.waiting import open_spinner
from reasonrl.plugins import load_plugins
from reasonrl.recipe.load import check_recipe

if TYPE_CHECKING:
    from reasonrl.planning.plan import Plan
    from reasonrl.planning.remedies import Planner, Remedy
    from reasonrl.recipe.resolved import AnyResolved


def run_plan(
    recipe: str,
    overrides: Sequence[str],
    gpu: str | None,
    gpus: int,
    price: float | None,
    as_json: bool,
    plugin_files: Sequence[str],
) -> None:
    """Print the plan of a recipe."""
    from reasonrl.planning.gpus import find_gpu

    found = find_gpu(gpu) if gpu is not None else None  # a wrong name is refused at once
    plugins = load_plugins(files=plugin_files)
    sharding = check_recipe(recipe, overrides, plugins).recipe.model.sharding  # before torch is loaded
    from reasonrl.planning.here import find_target
    from reasonrl.planning.plan import make_plan

    target = find_target(found, gpus, sharding)

    @cache
    def planner(further: tuple[str, ...]) -> tuple[AnyResolved, Plan]:
        changed = check_recipe(recipe, [*overrides, *further], plugins)
        return changed, make_plan(changed, plugins, target, price=price)

    with open_spinner("estimating from a dry run"):
        resolved, plan = planner(())
    remedies = [] if plan.fits else list(_searched(resolved, planner))
    if as_json:
        print_json({**plan.to_json(), "remedies": [_to_json(r, plan) for r in remedies]})
        return
    for line in describe(plan, remedies):
        typer.echo(line)


def _searched(resolved: AnyResolved, planner: Planner) -> Iterator[Remedy]:
    from reasonrl.planning.remedies import find_remedies

    typer.echo("does not fit; looking for changes that do ...", err=True)
    return find_remedies(resolved, planner)


def _to_json(remedy: Remedy, plan: Plan) -> dict[str, object]:
    after = remedy.plan
    return {
        "overrides": list(remedy.overrides),
        "peak": after.peak,
        "reserve": after.reserve,
        "times_step_s": remedy.price(plan),
    }


def describe(plan: Plan, remedies: Sequence[Remedy] = ()) -> Iterator[str]:
    """Lines of at most 80 columns where the names are short."""
    from reasonrl.planning.text import head_lines, memory_rows, remedy_lines, summary_lines

    for label, text in head_lines(plan):
        yield wrap(text, lead=f"{label:<12}", indent=" " * 12)
    yield ""
    for first, *cells in memory_rows(plan):
        yield f"{first:<16}" + "".join(f"{cell:>12}" for cell in cells)
    yield ""
    for label, text in (*summary_lines(plan), *remedy_lines(plan, remedies)):
        yield wrap(text, lead=f"{label:<12}", indent=" " * 12)

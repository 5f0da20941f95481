"""``reasonrl tasks``: look at a task's problems before training on them."""

from typing import Annotated, Literal

import typer

from reasonrl.cli.table import table
from reasonrl.cli.usage import Commands

app = Commands(help="Look at the problems of a task.")

Files = Annotated[list[str] | None, typer.Option("--plugin", metavar="FILE", help="Load this one too.")]


@app.command(name="list")
def list_tasks(plugin: Files = None) -> None:
    """The tasks that are installed."""
    from reasonrl.plugins import load_plugins

    specs = load_plugins(files=plugin or []).specs("task")
    for line in table(("NAME", "SUMMARY"), [(spec.name, spec.summary) for spec in specs]):
        typer.echo(line)


@app.command()
def preview(
    task: Annotated[
        str | None, typer.Argument(metavar="TASK", help="Task, as in `tasks list`; not with --recipe.")
    ] = None,
    options: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="KEY=VALUE",
            help="Options of the task, such as template=chat; with --recipe overrides, such as task.template=chat.",
        ),
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            "--recipe",
            metavar="RECIPE",
            help="Show what this recipe asks, as its model's tokenizer renders it.",
        ),
    ] = None,
    split: Annotated[
        Literal["train", "eval"], typer.Option("--split", metavar="SPLIT", help="train or eval.")
    ] = "train",
    num: Annotated[int, typer.Option("--num", "-n", min=1, metavar="N", help="How many problems.")] = 3,
    seed: Annotated[
        int | None, typer.Option("--seed", metavar="N", help="Seed of the problems; 0, or the recipe's.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    plugin: Files = None,
) -> None:
    """Show problems, a reference solution of each, and what the rewards pay for it.

    With --recipe the prompts are those of the recipe: its task's options, its model's chat template, tokens counted.
    """
    from reasonrl.cli.preview import run_preview

    run_preview(task, options or [], recipe, split, num, seed, as_json, plugin or [])

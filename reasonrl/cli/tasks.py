"""``reasonrl tasks``: list tasks and preview their problems."""

from typing import Annotated, Literal

import typer

from reasonrl.cli.table import table
from reasonrl.cli.usage import Commands, PluginFiles

app = Commands(help="List tasks and preview their problems.")


@app.command(name="list")
def list_tasks(plugin: PluginFiles = None) -> None:
    """List the installed tasks."""
    from reasonrl.plugins import load_plugins

    specs = load_plugins(files=plugin or []).specs("task")
    for line in table(("NAME", "SUMMARY"), [(spec.name, spec.summary) for spec in specs]):
        typer.echo(line)


@app.command()
def preview(
    task: Annotated[
        str | None, typer.Argument(metavar="TASK", help="Task name, as in `tasks list`; not with --recipe.")
    ] = None,
    options: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="KEY=VALUE",
            help="Task options, such as template=chat; with --recipe, overrides such as task.template=chat.",
        ),
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            "--recipe", metavar="RECIPE", help="Show the prompts of this recipe, rendered with its model's tokenizer."
        ),
    ] = None,
    split: Annotated[
        Literal["train", "eval"], typer.Option("--split", metavar="SPLIT", help="Split: train or eval.")
    ] = "train",
    num: Annotated[int, typer.Option("--num", "-n", min=1, metavar="N", help="Number of problems.")] = 3,
    seed: Annotated[
        int | None, typer.Option("--seed", metavar="N", help="Seed of the problems (default: the recipe's, else 0).")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    plugin: PluginFiles = None,
) -> None:
    """Show problems with reference solutions and their rewards.

    With --recipe, prompts use the recipe's task options and its model's chat template, with token counts.
    """
    from reasonrl.cli.preview import run_preview

    run_preview(task, options or [], recipe, split, num, seed, as_json, plugin or [])

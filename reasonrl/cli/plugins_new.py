"""``reasonrl plugins new``: create a working plugin project."""

from pathlib import Path

import typer

from reasonrl.cli.table import wrap


def run_new(name: str, kind: str, folder: str, *, multi_turn: bool = False) -> None:
    """Write the project and say what to do with it.

    Raises:
        RecipeError: if the recipe or an argument is wrong.
        PluginConflictError: if the name is taken.
    """
    from reasonrl.plugins import load_plugins
    from reasonrl.scaffold.project import create

    project = create(name, kind, Path(folder), load_plugins(), multi_turn=multi_turn)
    typer.echo(f"wrote {project.folder}")
    for file in project.files:
        typer.echo(f"  {file}")
    typer.echo(wrap("Next, in that folder:"))
    for command in project.commands:
        typer.echo(f"  {command}")

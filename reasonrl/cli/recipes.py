"""``reasonrl recipes``: the packaged recipes, and a check that needs neither torch nor a GPU."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from reasonrl.cli.table import table, wrapped
from reasonrl.cli.usage import Commands

if TYPE_CHECKING:
    from reasonrl.recipe.resolved import AnyResolved

app = Commands(help="Packaged recipes; check a recipe without running it.")

Name = Annotated[str, typer.Argument(metavar="RECIPE", help="Name of a packaged recipe, or a file.")]
Files = Annotated[list[str] | None, typer.Option("--plugin", metavar="FILE", help="Load this one too.")]


@app.command(name="list")
def list_recipes(plugin: Files = None) -> None:
    """The packaged recipes. `reasonrl train NAME` runs one."""
    from reasonrl.plugins import load_plugins

    plugins = load_plugins(files=plugin or [])
    for line in table(("NAME", "SUMMARY"), [(s.name, s.summary) for s in plugins.specs("recipe")]):
        typer.echo(line)


@app.command()
def show(name: Name, plugin: Files = None) -> None:
    """Print a recipe as it is written, with what it extends merged in."""
    typer.echo(_text(name, plugin), nl=False)


@app.command()
def copy(
    name: Name,
    destination: Annotated[
        Path | None, typer.Argument(metavar="FILE", help="File to write, instead of NAME.yaml.")
    ] = None,
    plugin: Files = None,
) -> None:
    """Copy a recipe, to change it. What it extends is merged in, comments are kept, and the copy stands alone."""
    from reasonrl.errors import RecipeError

    text = _text(name, plugin)
    target = destination or Path(f"{Path(name).stem if name.endswith('.yaml') else name}.yaml")
    try:
        with target.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError as err:
        raise RecipeError(f"{target}: exists already; give another name") from err
    except OSError as err:
        raise RecipeError(f"{target}: cannot be written: {err.strerror}") from err
    typer.echo(f"wrote {target}")


@app.command()
def check(
    recipe: Name,
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="KEY=VALUE", help="Overrides of the recipe, such as trainer.steps=10."),
    ] = None,
    plugin: Files = None,
) -> None:
    """Check a recipe: every key, type, range, name and combination, and its data files. Loads no model."""
    from reasonrl.plugins import load_plugins, unavailable_reason
    from reasonrl.recipe.load import check_recipe
    from reasonrl.recipe.notes import notes
    from reasonrl.recipe.resolved import components
    from reasonrl.text import sanitize
    from reasonrl.trainer.ready import refuse_new_run
    from reasonrl.trainer.sources import data_lines

    plugins = load_plugins(files=plugin or [])
    resolved = check_recipe(recipe, overrides or [], plugins)
    refuse_new_run(resolved)
    data = list(data_lines(resolved, plugins))
    typer.echo(f"{resolved.path}: ok")
    for line in _summary(resolved):
        typer.echo(wrapped(line, lead="  ", indent="    "))
    for line in data:
        typer.echo(wrapped(sanitize(line), lead="  ", indent="    "))
    reasons = sorted({unavailable_reason(c.spec) or "" for c in components(resolved)} - {""})
    for note in (*notes(resolved), *reasons):
        typer.echo(wrapped(f"note: {note}", indent="  "))


def _text(name: str, files: list[str] | None) -> str:
    from reasonrl.plugins import load_plugins
    from reasonrl.recipe.load import find_recipe
    from reasonrl.recipe.merged_text import merged_text

    return merged_text(find_recipe(name, load_plugins(files=files or [])))


def _summary(resolved: "AnyResolved") -> Iterator[str]:
    from reasonrl.recipe.resolved import ResolvedRecipe

    task = resolved.task.name if resolved.task else "a file of demonstrations"
    yield f"model {resolved.recipe.model.name or resolved.model_path}"
    if not isinstance(resolved, ResolvedRecipe):
        yield f"sft on {task}, {resolved.recipe.sft.max_tokens:,} tokens"
        return
    trainer, group = resolved.recipe.trainer, resolved.recipe.sampling.group_size
    yield f"{resolved.algorithm.name} on {task}, sampled with {resolved.rollout_backend.name}"
    completions = trainer.prompts_per_step * group
    yield f"{trainer.steps} steps of {trainer.prompts_per_step} prompts x {group} = {completions} completions"

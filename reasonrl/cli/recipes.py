"""``reasonrl recipes``: list, show, copy and check recipes. Needs neither torch nor a GPU."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from reasonrl.cli.table import table, wrap
from reasonrl.cli.usage import Commands, PluginFiles

if TYPE_CHECKING:
    from reasonrl.recipe.resolved import AnyResolved

app = Commands(help="List, show, copy and check recipes.")

Name = Annotated[str, typer.Argument(metavar="RECIPE", help="Recipe file, or name of a packaged recipe.")]


@app.command(name="list")
def list_recipes(plugin: PluginFiles = None) -> None:
    """List the packaged recipes. Run one with `reasonrl train NAME`."""
    from reasonrl.plugins import load_plugins

    plugins = load_plugins(files=plugin or [])
    for line in table(("NAME", "SUMMARY"), [(s.name, s.summary) for s in plugins.specs("recipe")]):
        typer.echo(line)


@app.command()
def show(name: Name, plugin: PluginFiles = None) -> None:
    """Print a recipe with the recipes it extends merged in."""
    typer.echo(_text(name, plugin), nl=False)


@app.command()
def copy(
    name: Name,
    destination: Annotated[
        Path | None, typer.Argument(metavar="FILE", help="File to write (default NAME.yaml).")
    ] = None,
    plugin: PluginFiles = None,
) -> None:
    """Copy a recipe to edit it. The copy is self-contained: extended recipes are merged in, comments kept."""
    from reasonrl.errors import RecipeError
    from reasonrl.rundir.files import write_new

    text = _text(name, plugin)
    target = destination or Path(f"{Path(name).stem if name.endswith('.yaml') else name}.yaml")
    try:
        write_new(target, text)
    except FileExistsError as err:
        raise RecipeError(f"{target} already exists; choose another name") from err
    except OSError as err:
        raise RecipeError(f"cannot write {target}: {err.strerror}; name another file") from err
    typer.echo(f"wrote {target}")


@app.command()
def check(
    recipe: Name,
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Recipe overrides, such as trainer.steps=10.")
    ] = None,
    gpu: Annotated[
        str | None,
        typer.Option(
            "--gpu", metavar="NAME|GIB", help="Also refuse a recipe that needs more memory than this GPU has."
        ),
    ] = None,
    plugin: PluginFiles = None,
) -> None:
    """Validate a recipe and its data files without loading a model."""
    from reasonrl.cli.gpu_check import check_gpu, known_gpu
    from reasonrl.plugins import load_plugins, unavailable_reason
    from reasonrl.recipe.load import check_recipe
    from reasonrl.recipe.notes import notes
    from reasonrl.recipe.resolved import components
    from reasonrl.runs.ready import missing_packages, refuse_new_run
    from reasonrl.runs.sources import describe_data
    from reasonrl.text import sanitize

    target = known_gpu(gpu) if gpu else None
    plugins = load_plugins(files=plugin or [])
    resolved = check_recipe(recipe, overrides or [], plugins)
    refuse_new_run(resolved, is_elsewhere=True)
    data = list(describe_data(resolved, plugins))
    memory = check_gpu(resolved, plugins, target, asked=f"{recipe} --gpu {gpu}") if target else None
    typer.echo(f"{resolved.path}: ok")
    for line in _summary(resolved):
        typer.echo(wrap(line, lead="  ", indent="    "))
    if memory:
        typer.echo(wrap(memory, lead="  ", indent="    "))
    for line in data:
        typer.echo(wrap(sanitize(line), lead="  ", indent="    "))
    absent = [f"{'.'.join(at)} {text}" for at, text in missing_packages(resolved)]
    reasons = sorted({unavailable_reason(c.spec) or "" for c in components(resolved)} - {""})
    for note in (*notes(resolved), *reasons, *absent):
        typer.echo(wrap(f"note: {note}", indent="  "))


def _text(name: str, files: list[str] | None) -> str:
    from reasonrl.plugins import load_plugins
    from reasonrl.recipe.load import find_recipe
    from reasonrl.recipe.merged_text import merged_text

    return merged_text(find_recipe(name, load_plugins(files=files or [])))


def _summary(resolved: "AnyResolved") -> Iterator[str]:
    from reasonrl.recipe.resolved import ResolvedRecipe
    from reasonrl.runs.outline import format_rewards

    task = resolved.task.name if resolved.task else "a file of demonstrations"
    yield f"model {resolved.recipe.model.name or resolved.model_path}"
    if not isinstance(resolved, ResolvedRecipe):
        yield f"sft on {task}, {resolved.recipe.sft.max_tokens:,} tokens"
        return
    trainer, group = resolved.recipe.trainer, resolved.recipe.sampling.group_size
    yield f"{resolved.algorithm.name} on {task}, sampled with {resolved.rollout_backend.name}"
    yield f"rewards {format_rewards(resolved)}"
    completions = trainer.prompts_per_step * group
    yield f"{trainer.steps} steps of {trainer.prompts_per_step} prompts x {group} = {completions} completions"

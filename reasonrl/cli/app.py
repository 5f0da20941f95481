"""The console script. Declares every command; what one needs is imported when it runs: help stays fast."""

import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from reasonrl.cli import plugins, recipes, tasks
from reasonrl.errors import ReasonRLError, RecipeError
from reasonrl.plugins import one_line
from reasonrl.redact import REDACTED, redact_traceback

EXIT_INTERRUPTED = 130


class _OneLineErrors(TyperGroup):
    """Turns the errors that reasonrl raises on purpose into one line and their exit code; no error tells a secret."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except ReasonRLError as err:
            typer.echo(f"error: {one_line(err)}", err=True)
            raise typer.Exit(err.exit_code) from err
        except KeyboardInterrupt as err:
            typer.echo("interrupted", err=True)
            # A stop that a signal asked for knows which one.
            raise typer.Exit(getattr(err, "exit_code", EXIT_INTERRUPTED)) from err
        except Exception as err:
            text = redact_traceback(err)
            if hasattr(err, "exit_code") or REDACTED not in text:  # typer's own, or nothing to hide
                raise
            typer.echo(text, err=True, nl=False)
            raise typer.Exit(1) from None


app = typer.Typer(
    cls=_OneLineErrors,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    help="Teach a language model to reason by reinforcement learning.",
    epilog="Start: reasonrl train countdown_ppo",
)
app.add_typer(plugins.app, name="plugins")
app.add_typer(recipes.app, name="recipes")
app.add_typer(tasks.app, name="tasks")

Overrides = Annotated[list[str] | None, typer.Argument(help="section.key=value, over the recipe.")]
PluginFiles = Annotated[
    list[str] | None, typer.Option("--plugin", metavar="FILE", help="Load a plugin from a file or module.")
]
RunDir = Annotated[str | None, typer.Option(help="Folder to create for this run. Default: runs/<name>-<n>.")]
RecipeName = Annotated[str, typer.Argument(help="Recipe file, or name of a packaged one.")]
Target = Annotated[str, typer.Argument(metavar="RUN|MODEL", help="Run folder, model folder or hub name.")]
ForRecipe = Annotated[str | None, typer.Option("--recipe", help="Recipe to use; default: the run's own.")]
Plain = Annotated[bool, typer.Option("--plain", help="A line a step, also in a terminal.")]


@app.callback(invoke_without_command=True)
def root(version: Annotated[bool, typer.Option("--version", help="Show the version.")] = False) -> None:
    if version:
        import reasonrl

        typer.echo(f"reasonrl {reasonrl.__version__}")
        raise typer.Exit


@app.command()
def train(
    recipe: RecipeName,
    overrides: Overrides = None,
    run_dir: RunDir = None,
    plain: Plain = False,
    plugin: PluginFiles = None,
) -> None:
    """Run a recipe: reinforcement learning from a base model to a better one."""
    from reasonrl.cli.train import run_train

    run_train(recipe, overrides or [], run_dir, plugin or [], plain)


@app.command()
def resume(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Run folder.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="trainer.steps=N: go on for longer than planned.")
    ] = None,
    strict: Annotated[bool, typer.Option(help="Refuse if the newest checkpoint is damaged.")] = False,
    plain: Plain = False,
    plugin: PluginFiles = None,
) -> None:
    """Go on with a run that was stopped or killed, from its newest whole checkpoint."""
    from reasonrl.cli.resume import run_resume

    run_resume(run, overrides or [], strict, plugin or [], plain)


@app.command()
def sft(
    recipe: RecipeName,
    overrides: Overrides = None,
    run_dir: RunDir = None,
    output: Annotated[str | None, typer.Option(help="Also copy the finished model to this folder.")] = None,
    plain: Plain = False,
    plugin: PluginFiles = None,
) -> None:
    """Fine-tune a model on demonstrations: how base models are made."""
    from reasonrl.cli.train import run_sft

    run_sft(recipe, overrides or [], run_dir, output, plugin or [], plain)


@app.command(name="eval")
def evaluate(
    target: Target,
    recipe: ForRecipe = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    plugin: PluginFiles = None,
) -> None:
    """Measure a run's model, or any model, on a recipe's held-out problems."""
    from reasonrl.cli.evaluate import run_eval

    run_eval(target, recipe, as_json, plugin or [])


@app.command()
def behaviours(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Run folder; the run may still be going on.")],
    suite: Annotated[str | None, typer.Option(help="Show this suite only.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, with every evaluation.")] = False,
) -> None:
    """Show what a run's completions do, from the base model to the last evaluation."""
    from reasonrl.cli.behaviours import run_behaviours

    run_behaviours(run, suite, as_json)


@app.command()
def doctor(
    run: Annotated[str | None, typer.Argument(metavar="RUN", help="Run folder, finished or not.")] = None,
    of_installation: Annotated[bool, typer.Option("--self", help="Examine this installation.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say what is wrong with a run, since when, and what to change. Exit status 1 for an error."""
    from reasonrl.cli.doctor import run_doctor

    run_doctor(run, of_installation, as_json)


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def generate(
    ctx: typer.Context,
    target: Target,
    recipe: ForRecipe = None,
    num: Annotated[int, typer.Option("--num", "-n", min=1, help="Completions to sample.")] = 1,
    temperature: Annotated[
        float | None, typer.Option(min=0.0, help="0 = greedy; default: the recipe's.")
    ] = None,
    plugin: PluginFiles = None,
) -> None:
    """Let a model solve one problem. Further options describe it: --numbers 3,5,8 --target 16."""
    fields = parse_fields(ctx.args)
    from reasonrl.cli.generate import run_generate

    run_generate(target, recipe, num, temperature, fields, plugin or [])


def parse_fields(args: Sequence[str]) -> dict[str, str]:
    """``["--numbers", "3,5", "--target=16"]`` -> ``{"numbers": "3,5", "target": "16"}``."""
    fields: dict[str, str] = {}
    rest = list(args)
    while rest:
        option = rest.pop(0)
        name, equals, value = option.removeprefix("--").partition("=")
        if not option.startswith("--") or not name:
            raise RecipeError(f"unexpected argument {option!r}; describe the problem as --key value")
        if not equals:
            if not rest:
                raise RecipeError(f"--{name} has no value")
            value = rest.pop(0)
        fields[name.replace("-", "_")] = value
    return fields


def main() -> None:
    """Entry point of the ``reasonrl`` command."""
    # A prompt may hold characters that the terminal cannot show; that must not end a command.
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    app(prog_name="reasonrl")

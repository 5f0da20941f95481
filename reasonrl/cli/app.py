"""The console script. Declares every command; what one needs is imported when it runs: help stays fast."""

import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from reasonrl.cli import plugins, recipes, tasks
from reasonrl.cli.table import for_terminal
from reasonrl.cli.usage import Commands, Group
from reasonrl.cli.wrong_usage import asks_for_help, explain, is_wrong_usage
from reasonrl.errors import ReasonRLError, RecipeError, one_line, with_notes
from reasonrl.recipe.schema import Device
from reasonrl.redact import REDACTED, redact_traceback

EXIT_INTERRUPTED = 130


class _OneLineErrors(Group):
    """Turns wrong command lines, and the errors that reasonrl raises on purpose, into one line and their exit code.

    No error tells a secret.
    """

    def main(self, args: Sequence[str] | None = None, *rest: Any, **options: Any) -> Any:
        words = list(sys.argv[1:] if args is None else args)
        is_alone = options.pop("standalone_mode", True)
        options["standalone_mode"] = False
        try:
            result = super().main(words, *rest, **options)
        except Exception as err:
            if not is_wrong_usage(err):
                raise
            result = _refused(err, words)
        if is_alone:
            sys.exit(result if isinstance(result, int) else 0)
        return result

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except ReasonRLError as err:
            _say_error(with_notes(one_line(err), err))
            raise typer.Exit(err.exit_code) from err
        except KeyboardInterrupt as err:
            typer.echo("interrupted", err=True)
            # A stop that a signal asked for knows which one.
            raise typer.Exit(getattr(err, "exit_code", EXIT_INTERRUPTED)) from err
        except Exception as err:
            text = redact_traceback(err)
            is_shown = REDACTED in text or sys.stderr.isatty()
            if hasattr(err, "exit_code") or not is_shown:  # typer's own; or nothing to hide, and no lines to break
                raise
            typer.echo(for_terminal(text, stream=sys.stderr), err=True, nl=False)
            raise typer.Exit(1) from None


def _refused(err: Exception, words: Sequence[str]) -> int:
    if asks_for_help(err):
        typer.echo(err.ctx.get_help())  # type: ignore[attr-defined]
        return 0
    _say_error(explain(err, words))
    return 2


def _say_error(text: str) -> None:
    """One line, also where it is broken at words for a terminal."""
    typer.echo(for_terminal(f"error: {text}", stream=sys.stderr), err=True)


app = Commands(
    cls=_OneLineErrors,
    pretty_exceptions_enable=False,
    help="Teach a language model to reason by reinforcement learning.",
    epilog="Start: reasonrl train countdown_ppo",
)
app.add_typer(plugins.app, name="plugins")
app.add_typer(recipes.app, name="recipes")
app.add_typer(tasks.app, name="tasks")

Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="KEY=VALUE", help="Overrides of the recipe, such as trainer.steps=10."),
]
PluginFiles = Annotated[
    list[str] | None, typer.Option("--plugin", metavar="FILE", help="Load a plugin from a file or module.")
]
RunDir = Annotated[
    str | None,
    typer.Option("--run-dir", metavar="DIR", help="Folder to create for this run, instead of runs/<name>-<n>."),
]
RecipeName = Annotated[str, typer.Argument(metavar="RECIPE", help="Recipe file, or name of a packaged one.")]
Target = Annotated[str, typer.Argument(metavar="RUN|MODEL", help="Run folder, model or adapter folder, or hub name.")]
ForRecipe = Annotated[
    str | None,
    typer.Option("--recipe", metavar="RECIPE", help="Recipe to use, instead of the run's own."),
]
OnDevice = Annotated[Device | None, typer.Option("--device", help="Where to compute, instead of the recipe's device.")]
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
    device: OnDevice = None,
    plain: Plain = False,
    plugin: PluginFiles = None,
) -> None:
    """Run a recipe: reinforcement learning from a base model to a better one."""
    from reasonrl.cli.train import run_train

    run_train(recipe, [*(overrides or []), *on(device)], run_dir, plugin or [], plain)


@app.command()
def resume(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Run folder.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="KEY=VALUE",
            help="Changes, such as trainer.steps=N to train for longer; limits, memory and logging may change too.",
        ),
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Refuse if the newest checkpoint is damaged.")] = False,
    device: OnDevice = None,
    plain: Plain = False,
    plugin: PluginFiles = None,
) -> None:
    """Resume a run that was stopped or killed, from its newest whole checkpoint."""
    from reasonrl.cli.resume import run_resume

    run_resume(run, [*(overrides or []), *on(device)], strict, plugin or [], plain)


@app.command()
def sft(
    recipe: RecipeName,
    overrides: Overrides = None,
    run_dir: RunDir = None,
    output: Annotated[
        str | None,
        typer.Option("--output", metavar="DIR", help="Also copy the finished model to this folder."),
    ] = None,
    device: OnDevice = None,
    plain: Plain = False,
    plugin: PluginFiles = None,
) -> None:
    """Fine-tune a model on demonstrations: how base models are made."""
    from reasonrl.cli.train import run_sft

    run_sft(recipe, [*(overrides or []), *on(device)], run_dir, output, plugin or [], plain)


@app.command(name="eval")
def evaluate(
    target: Target,
    recipe: ForRecipe = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    device: OnDevice = None,
    plugin: PluginFiles = None,
) -> None:
    """Measure a run's model, or any model, on a recipe's held-out problems."""
    from reasonrl.cli.evaluate import run_eval

    run_eval(target, recipe, as_json, plugin or [], on(device))


@app.command()
def behaviors(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Run folder; the run may still be training.")],
    suite: Annotated[str | None, typer.Option("--suite", metavar="SUITE", help="Show this suite only.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, with every evaluation.")] = False,
) -> None:
    """Show what a run's completions do, from the base model to the last evaluation."""
    from reasonrl.cli.behaviors import run_behaviors

    run_behaviors(run, suite, as_json)


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
    num: Annotated[int, typer.Option("--num", "-n", min=1, metavar="N", help="Completions to sample.")] = 1,
    temperature: Annotated[
        float | None,
        typer.Option("--temperature", min=0.0, metavar="T", help="0 = greedy; without it, the recipe's."),
    ] = None,
    device: OnDevice = None,
    plugin: PluginFiles = None,
) -> None:
    """Let a model solve one problem. Further options describe it: --numbers 3,5,8 --target 16."""
    fields = parse_fields(ctx.args)
    from reasonrl.cli.generate import run_generate

    run_generate(target, recipe, num, temperature, fields, plugin or [], on(device))


def on(device: Device | None) -> list[str]:
    """``--device`` as an override of the recipe."""
    return [f"device={device}"] if device else []


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

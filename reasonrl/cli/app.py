"""The ``reasonrl`` command. Commands import what they need when they run, so that ``--help`` stays fast."""

from typing import Annotated

import typer

from reasonrl.cli import plugins, recipes, tasks
from reasonrl.cli.fields import parse_fields
from reasonrl.cli.one_line import EXIT_INTERRUPTED, OneLineErrors
from reasonrl.cli.options import (
    ForRecipe,
    OnDevice,
    Overrides,
    Plain,
    Play,
    RecipeName,
    RunDir,
    Strict,
    Target,
    device_override,
)
from reasonrl.cli.steady import plausible_size, steady_streams
from reasonrl.cli.usage import Commands, PluginFiles
from reasonrl.export.request import Format, Precision

app = Commands(
    cls=OneLineErrors,
    pretty_exceptions_enable=False,
    help="Train language models to reason with reinforcement learning.",
    epilog="Get started: reasonrl train countdown_ppo",
)
app.add_typer(plugins.app, name="plugins")
app.add_typer(recipes.app, name="recipes")
app.add_typer(tasks.app, name="tasks")


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
    """Train a model with reinforcement learning, as a recipe describes."""
    from reasonrl.cli.train import run_train

    run_train(recipe, [*(overrides or []), *device_override(device)], run_dir, plugin or [], plain)


@app.command()
def plan(
    recipe: RecipeName,
    overrides: Overrides = None,
    gpu: Annotated[
        str | None, typer.Option("--gpu", metavar="NAME|GIB", help="GPU, by name or memory (default: this machine's).")
    ] = None,
    gpus: Annotated[int, typer.Option("--gpus", min=1, metavar="N", help="Number of GPUs.")] = 1,
    price: Annotated[
        float | None, typer.Option("--price", min=0.0, metavar="X", help="Price of one GPU per hour.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    plugin: PluginFiles = None,
) -> None:
    """Estimate memory, time and money of a recipe, from a dry run of one step without data."""
    from reasonrl.cli.plan import run_plan

    run_plan(recipe, overrides or [], gpu, gpus, price, as_json, plugin or [])


@app.command()
def resume(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Run folder.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="KEY=VALUE",
            help="Overrides, such as trainer.steps=N to train longer; limits, memory and logging can change too.",
        ),
    ] = None,
    strict: Strict = False,
    device: OnDevice = None,
    plain: Plain = False,
    plugin: PluginFiles = None,
) -> None:
    """Resume an interrupted, failed or killed run from its newest complete checkpoint."""
    from reasonrl.cli.resume import run_resume

    run_resume(run, [*(overrides or []), *device_override(device)], strict, plugin or [], plain)


@app.command()
def sft(
    recipe: RecipeName,
    overrides: Overrides = None,
    run_dir: RunDir = None,
    output: Annotated[
        str | None, typer.Option("--output", metavar="DIR", help="Also copy the final model to this folder.")
    ] = None,
    device: OnDevice = None,
    plain: Plain = False,
    plugin: PluginFiles = None,
) -> None:
    """Run supervised fine-tuning (SFT) on demonstrations."""
    from reasonrl.cli.train import run_sft

    run_sft(recipe, [*(overrides or []), *device_override(device)], run_dir, output, plugin or [], plain)


@app.command()
def sweep(
    recipe: RecipeName,
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="KEY=VALUE,VALUE", help="Overrides; a key with several values is varied."),
    ] = None,
    folder: Annotated[
        str | None, typer.Option("--dir", metavar="DIR", help="Folder of the sweep (default runs/<name>-<keys>).")
    ] = None,
    jobs: Annotated[int, typer.Option("--jobs", "-j", min=1, metavar="N", help="Runs at a time.")] = 1,
    only: Annotated[
        int | None, typer.Option("--only", min=1, metavar="N", help="Train only point N, as --dry-run numbers them.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List the points and what is left to do.")] = False,
    device: OnDevice = None,
    plugin: PluginFiles = None,
) -> None:
    """Train a recipe at every combination of values. Repeat the command to resume: finished runs are skipped."""
    from reasonrl.cli.sweep import run_sweep

    words = [*(overrides or []), *device_override(device)]
    run_sweep(recipe, words, folder, jobs=jobs, only=only, dry_run=dry_run, plugin_files=plugin or [])


@app.command(name="eval")
def evaluate(
    target: Target,
    overrides: Overrides = None,
    recipe: ForRecipe = None,
    output: Annotated[
        str | None,
        typer.Option("--output", metavar="DIR", help="New folder for results (lm-eval fields) and completions."),
    ] = None,
    strict: Strict = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    device: OnDevice = None,
    plugin: PluginFiles = None,
) -> None:
    """Evaluate a run's model, or any model, on a recipe's held-out problems."""
    from reasonrl.cli.evaluate import run_eval

    asked = [*(overrides or []), *device_override(device)]
    run_eval(target, recipe, as_json, output, plugin or [], asked, strict=strict)


@app.command()
def behaviors(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Run folder; the run may still be training.")],
    suite: Annotated[str | None, typer.Option("--suite", metavar="SUITE", help="Show only this suite.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON with every evaluation.")] = False,
) -> None:
    """Show how the behaviors of completions change from the base model to the last evaluation."""
    from reasonrl.cli.behaviors import run_behaviors

    run_behaviors(run, suite, as_json)


@app.command()
def compare(
    runs: Annotated[
        list[str], typer.Argument(metavar="RUN", help="Run, RUN@STEP, saved evaluation, or a folder of them.")
    ],
    suite: Annotated[str | None, typer.Option("--suite", metavar="SUITE", help="Compare only this suite.")] = None,
    level: Annotated[
        float | None,
        typer.Option("--level", min=0.0, max=1.0, metavar="X", help="Accuracy for the cost (default: all reach it)."),
    ] = None,
    pool: Annotated[bool, typer.Option("--pool/--no-pool", help="Pool runs that differ only in the seed.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Compare runs with the first one, on the same problems: difference, interval, cost, recipes."""
    from reasonrl.cli.compare import run_compare

    run_compare(runs, suite, level, pool, as_json)


@app.command()
def report(
    runs: Annotated[
        list[str], typer.Argument(metavar="RUN", help="Run folders, or folders of runs; they may still be training.")
    ],
    output: Annotated[
        str | None,
        typer.Option(
            "--output", "-o", metavar="FILE", help="File to write (default RUN/report.html, or ./report.html)."
        ),
    ] = None,
    samples: Annotated[
        int | None,
        typer.Option(
            "--samples",
            min=0,
            metavar="N",
            help="Completions to include, however large the file (default 10000, fewer if it would exceed 5 MB).",
        ),
    ] = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Update the report while the runs are training; the page refreshes itself.")
    ] = False,
) -> None:
    """Write one HTML file about runs: curves, evaluations, time, the doctor's findings, a browser of completions."""
    from reasonrl.cli.report import run_report

    run_report(runs, output, samples, watch)


@app.command()
def doctor(
    run: Annotated[str | None, typer.Argument(metavar="RUN", help="Run folder; the run may still be training.")] = None,
    of_installation: Annotated[bool, typer.Option("--self", help="Diagnose this installation.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Diagnose a run: what is wrong, since which step, and what to change. Exits with status 1 if it finds an error."""
    from reasonrl.cli.doctor import run_doctor

    run_doctor(run, of_installation, as_json)


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def generate(  # noqa: PLR0913 - an argument for each option
    ctx: typer.Context,
    target: Target,
    recipe: ForRecipe = None,
    num: Annotated[int, typer.Option("--num", "-n", min=1, metavar="N", help="Completions to sample.")] = 1,
    temperature: Annotated[
        float | None, typer.Option("--temperature", min=0.0, metavar="T", help="0 = greedy (default: the recipe's).")
    ] = None,
    play: Play = False,
    strict: Strict = False,
    device: OnDevice = None,
    plugin: PluginFiles = None,
) -> None:
    """Sample completions of one problem, described by the task's options: --numbers 3,5,8 --target 16."""
    fields = parse_fields(ctx.args)
    from reasonrl.cli.generate import run_generate

    run_generate(target, recipe, num, temperature, fields, plugin or [], device_override(device), strict, play)


@app.command()
def chat(  # noqa: PLR0913 - an argument for each option
    target: Target,
    recipe: ForRecipe = None,
    temperature: Annotated[
        float | None,
        typer.Option("--temperature", min=0.0, metavar="T", help="0 = greedy (default: the recipe's, or 1)."),
    ] = None,
    max_tokens: Annotated[
        int | None,
        typer.Option("--max-tokens", min=1, metavar="N", help="Of an answer (default: the recipe's, or 512)."),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, metavar="N", help="Seed of the sampling.")] = 0,
    raw: Annotated[
        bool | None,
        typer.Option("--raw/--template", help="Continue each text, or use the chat template (default: as trained)."),
    ] = None,
    strict: Strict = False,
    device: OnDevice = None,
    plugin: PluginFiles = None,
) -> None:
    """Chat with a run's model, or any model; /problem has it solve a problem of the recipe's task."""
    from reasonrl.cli.chat import run_chat

    options = {"temperature": temperature, "max_tokens": max_tokens, "seed": seed, "raw": raw}
    run_chat(target, recipe, plugin or [], device_override(device), strict, device=device or "auto", **options)


@app.command()
def export(  # noqa: PLR0913 - an argument for each option
    run: Annotated[str, typer.Argument(metavar="RUN", help="Run folder.")],
    to: Annotated[
        str | None, typer.Option("--to", metavar="FOLDER", help="Folder to create (default RUN/export/FORMAT).")
    ] = None,
    form: Annotated[
        Format, typer.Option("--format", help="The whole model, its LoRA adapter alone, or a GGUF file.")
    ] = "merged",
    dtype: Annotated[
        Precision | None, typer.Option("--dtype", help="Precision (default: the run's; adapter float32, gguf float16).")
    ] = None,
    step: Annotated[
        int | None, typer.Option("--step", metavar="N", help="Checkpoint to export (default: the newest).")
    ] = None,
    push: Annotated[
        str | None, typer.Option("--push", metavar="REPO", help="Also upload to this repository of the hub.")
    ] = None,
    private: Annotated[bool, typer.Option("--private", help="Create the repository as a private one.")] = False,
    license: Annotated[
        str | None, typer.Option("--license", metavar="NAME", help="License for the card (default: the base model's).")
    ] = None,
    strict: Strict = False,
) -> None:
    """Export a run's model with a model card, to a folder or the Hugging Face hub."""
    from reasonrl.cli.export import run_export

    run_export(run, to, push, format=form, dtype=dtype, step=step, private=private, license=license, strict=strict)


def main() -> None:
    """Run the ``reasonrl`` command."""
    try:
        plausible_size()
        steady_streams()
        app(prog_name="reasonrl")
    except KeyboardInterrupt as err:  # before signals are handled, or at the very end
        typer.echo("interrupted", err=True)
        raise SystemExit(EXIT_INTERRUPTED) from err

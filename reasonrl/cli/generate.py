"""``reasonrl generate``."""

from collections.abc import Mapping, Sequence

import typer

from reasonrl.cli.speakers import TASK
from reasonrl.errors import RecipeError
from reasonrl.importing import without_collection
from reasonrl.rundir.holds import holding
from reasonrl.runs.plugin_files import load_run_plugins
from reasonrl.runs.targets import find_run, find_target
from reasonrl.text import sanitize


@holding()
def run_generate(  # noqa: PLR0913 - an argument for each option
    target: str,
    recipe: str | None,
    num: int,
    temperature: float | None,
    fields: Mapping[str, str],
    plugin_files: Sequence[str],
    overrides: Sequence[str] = (),
    strict: bool = False,
    play: bool = False,
) -> None:
    """Sample completions of one problem and print each with its verdict."""
    if play and num > 1:
        raise RecipeError(f"--play is for one completion, got -n {num}")
    if num < 1:
        raise RecipeError(f"-n must be >= 1, got {num}")
    if temperature is not None and not 0.0 <= temperature < float("inf"):
        raise RecipeError(f"--temperature must be >= 0, got {temperature}")
    plugins = load_run_plugins(find_run(target), plugin_files)
    found = find_target(target, recipe, plugins, overrides, strict=strict)
    from reasonrl.cli.console import ConsoleReporter
    from reasonrl.cli.waiting import Progress, open_progress

    with open_progress(found.resolved, "generate") as progress:
        with without_collection():
            from reasonrl.runs.ask import generate

        def reply(text: str) -> str | None:
            if isinstance(progress, Progress):
                progress.close()  # a spinner would draw over what is typed
            return _ask_person(text)

        asked = reply if play else None
        scored = generate(found, plugins, fields, progress, num=num, temperature=temperature, play=asked)
    ConsoleReporter().generated(scored, "you" if play else TASK)


def _ask_person(text: str) -> str | None:
    """Show the model's message and read a line; an empty one, or the end of the input, ends the conversation."""
    typer.echo(f"\nmodel: {sanitize(text).rstrip()}")
    try:
        return input("you: ").strip() or None
    except EOFError:
        return None

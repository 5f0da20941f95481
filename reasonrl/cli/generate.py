"""``reasonrl generate``."""

from collections.abc import Mapping, Sequence

from reasonrl.errors import RecipeError
from reasonrl.runs.plugin_files import load_run_plugins
from reasonrl.runs.targets import find_run, find_target


def run_generate(
    target: str,
    recipe: str | None,
    num: int,
    temperature: float | None,
    fields: Mapping[str, str],
    plugin_files: Sequence[str],
    overrides: Sequence[str] = (),
    *,
    strict: bool = False,
) -> None:
    """Sample completions of one problem and print each with its verdict."""
    if num < 1:
        raise RecipeError(f"-n must be >= 1, got {num}")
    if temperature is not None and not 0.0 <= temperature < float("inf"):
        raise RecipeError(f"--temperature must be >= 0, got {temperature}")
    plugins = load_run_plugins(find_run(target), plugin_files)
    found = find_target(target, recipe, plugins, overrides, strict=strict)
    from reasonrl.cli.console import ConsoleReporter
    from reasonrl.cli.waiting import open_progress

    with open_progress(found.resolved, "generate") as progress:
        from reasonrl.runs.ask import generate

        scored = generate(found, plugins, fields, progress, num=num, temperature=temperature)
    ConsoleReporter().generated(scored)

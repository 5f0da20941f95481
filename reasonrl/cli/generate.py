"""``reasonrl generate``."""

from collections.abc import Mapping, Sequence

from reasonrl.errors import RecipeError
from reasonrl.trainer.run_plugins import load_with
from reasonrl.trainer.targets import find_target, run_of


def run_generate(
    target: str,
    recipe: str | None,
    num: int,
    temperature: float | None,
    fields: Mapping[str, str],
    plugin_files: Sequence[str],
) -> None:
    """Sample completions of one problem and print each with its verdict."""
    if num < 1:
        raise RecipeError(f"-n must be >= 1, got {num}")
    if temperature is not None and not 0.0 <= temperature < float("inf"):
        raise RecipeError(f"--temperature must be >= 0, got {temperature}")
    plugins = load_with(run_of(target), plugin_files)
    found = find_target(target, recipe, plugins)
    from reasonrl.cli.console import ConsoleReporter
    from reasonrl.trainer.ask import generate

    ConsoleReporter().generated(generate(found, plugins, fields, num=num, temperature=temperature))

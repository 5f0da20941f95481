"""``reasonrl train`` and ``reasonrl sft``."""

from collections.abc import Sequence

from reasonrl.cli.ranks import start_missing_ranks
from reasonrl.trainer import run


def run_train(
    recipe: str, overrides: Sequence[str], run_dir: str | None, plugin_files: Sequence[str]
) -> None:
    """Train by reinforcement learning and show it."""
    start_missing_ranks()
    from reasonrl.cli.console import ConsoleReporter

    run.train(recipe, overrides, run_dir=run_dir, plugin_files=plugin_files, reporter=ConsoleReporter())


def run_sft(
    recipe: str,
    overrides: Sequence[str],
    run_dir: str | None,
    output: str | None,
    plugin_files: Sequence[str],
) -> None:
    """Train by imitation and show it."""
    start_missing_ranks()
    from reasonrl.cli.console import ConsoleReporter

    run.sft(
        recipe,
        overrides,
        run_dir=run_dir,
        output=output,
        plugin_files=plugin_files,
        reporter=ConsoleReporter(),
    )

"""``reasonrl resume``."""

from collections.abc import Sequence

import typer

from reasonrl.cli.ranks import start_missing_ranks
from reasonrl.cli.report import tell_report
from reasonrl.runs import start
from reasonrl.runs.result import ALREADY_DONE


def run_resume(target: str, overrides: Sequence[str], strict: bool, plugin_files: Sequence[str], plain: bool) -> None:
    """Resume a run and show its progress."""
    start_missing_ranks()
    from reasonrl.cli.live import open_reporter

    with open_reporter(plain) as reporter:
        result = start.resume(target, overrides, strict=strict, plugin_files=plugin_files, reporter=reporter)
    if result.outcome == ALREADY_DONE:
        typer.echo(result.note)
    tell_report(result.run_dir)

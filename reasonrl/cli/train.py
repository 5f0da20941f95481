"""``reasonrl train`` and ``reasonrl sft``."""

from collections.abc import Sequence

from reasonrl.cli.forecast import forecast
from reasonrl.cli.ranks import start_missing_ranks
from reasonrl.cli.report import tell_report
from reasonrl.runs import start


def run_train(
    recipe: str, overrides: Sequence[str], run_dir: str | None, plugin_files: Sequence[str], plain: bool
) -> None:
    """Train with reinforcement learning and show the progress."""
    start_missing_ranks()
    from reasonrl.cli.live import open_reporter

    with open_reporter(plain) as reporter:
        result = start.train(
            recipe, overrides, run_dir=run_dir, plugin_files=plugin_files, reporter=reporter, forecast=forecast
        )
    tell_report(result.run_dir)


def run_sft(
    recipe: str,
    overrides: Sequence[str],
    run_dir: str | None,
    output: str | None,
    plugin_files: Sequence[str],
    plain: bool,
) -> None:
    """Run SFT and show the progress."""
    start_missing_ranks()
    from reasonrl.cli.live import open_reporter

    with open_reporter(plain) as reporter:
        result = start.sft(
            recipe,
            overrides,
            run_dir=run_dir,
            output=output,
            plugin_files=plugin_files,
            reporter=reporter,
            forecast=forecast,
        )
    tell_report(result.run_dir)

"""What is being waited for: a line that changes in a terminal, a line each elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.live import Live
from rich.spinner import Spinner
from rich.text import Text

from reasonrl.cli.console import ConsoleReporter
from reasonrl.observability.reporter import EvaluationProgress, Reporter, SilentReporter

if TYPE_CHECKING:
    from reasonrl.recipe.resolved import AnyResolved


class Waiting:
    """A spinner with a text, in a terminal; it leaves nothing behind."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._spinner: Spinner | None = None
        self._live: Live | None = None

    def show(self, what: str) -> None:
        text = Text(f"{what} ...", style="dim", no_wrap=True, overflow="ellipsis")
        if self._spinner is not None:
            self._spinner.update(text=text)
            return
        is_unicode = self._console.encoding.lower().startswith("utf")
        self._spinner = Spinner("dots" if is_unicode else "line", text)
        # Results may go to a file while this line is in the terminal.
        self._live = Live(
            self._spinner, console=self._console, transient=True, refresh_per_second=8, redirect_stdout=False
        )
        self._live.start()

    def stop(self) -> None:
        live, self._live, self._spinner = self._live, None, None
        if live is not None:
            live.stop()


class Progress(SilentReporter):
    """How far ``eval`` or ``generate`` is, on standard error: standard output is for the results."""

    def __init__(self, console: Console) -> None:
        self._plain = ConsoleReporter(console)
        self._waiting = Waiting(console) if console.is_terminal else None

    def waiting(self, what: str) -> None:
        if self._waiting is None:
            self._plain.waiting(what)
        else:
            self._waiting.show(what)

    def evaluating(self, progress: EvaluationProgress) -> None:
        if self._waiting is None:
            self._plain.evaluating(progress)
        else:
            how_far = f"{progress.done:,} of {progress.total:,} problems"
            self._waiting.show(f"evaluating {progress.suite}: {how_far}")

    def close(self) -> None:
        if self._waiting is not None:
            self._waiting.stop()


@contextmanager
def open_waiting(what: str) -> Iterator[None]:
    """Say on standard error what is being waited for."""
    progress = Progress(Console(stderr=True, highlight=False, soft_wrap=True))
    progress.waiting(what)
    try:
        yield
    finally:
        progress.close()


@contextmanager
def open_checks() -> Iterator[Callable[[str, str], None]]:
    """Say which check runs, on standard error: in a terminal each one, elsewhere a line a component."""
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    progress, told = Progress(console), set[str]()

    def tell(subject: str, check: str) -> None:
        if console.is_terminal:
            progress.waiting(f"checking {subject}: {check}")
        elif subject not in told:
            told.add(subject)
            progress.waiting(f"checking {subject}")

    try:
        yield tell
    finally:
        progress.close()


@contextmanager
def open_progress(resolved: AnyResolved, what: str) -> Iterator[Reporter]:
    """Say what is asked, then how far it is. Only the first process says anything."""
    from reasonrl.trainer.outline import question_of
    from reasonrl.trainer.run import is_first_process

    if not is_first_process():
        yield SilentReporter()
        return
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    progress = Progress(console)
    ConsoleReporter(console).starting(question_of(resolved, what))
    progress.waiting("loading torch and transformers")
    try:
        yield progress
    finally:
        progress.close()

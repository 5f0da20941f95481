"""Progress of slow operations: a spinner in a terminal, plain lines elsewhere."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.live import Live
from rich.spinner import Spinner
from rich.text import Text

from reasonrl.cli.console import ConsoleReporter
from reasonrl.observability.reporter import EvaluationProgress, Reporter, SilentReporter

if TYPE_CHECKING:
    from reasonrl.recipe.resolved import AnyResolved


DELAY_S = 1.0


class Waiting:
    """A transient spinner with a text."""

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
        # Results may be redirected to a file while the spinner is in the terminal.
        self._live = Live(
            self._spinner, console=self._console, transient=True, refresh_per_second=8, redirect_stdout=False
        )
        self._live.start()

    def stop(self) -> None:
        live, self._live, self._spinner = self._live, None, None
        if live is not None:
            live.stop()


class Progress(SilentReporter):
    """Progress of ``eval`` or ``generate`` on standard error; standard output is for results."""

    def __init__(self, console: Console) -> None:
        self._plain = ConsoleReporter(console)
        self._waiting = Waiting(console) if console.is_terminal else None

    def waiting(self, what: str) -> None:
        if self._waiting is None:
            self._plain.waiting(what)
        else:
            self._waiting.show(what)

    def progress(self, what: str) -> None:
        if self._waiting is not None:
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


def _stderr() -> Console:
    return Console(stderr=True, highlight=False, soft_wrap=True)


@contextmanager
def open_waiting(what: str) -> Iterator[None]:
    """Show on standard error what is in progress."""
    with closing(Progress(_stderr())) as progress:
        progress.waiting(what)
        yield


@contextmanager
def open_spinner(what: str) -> Iterator[None]:
    """Show what is in progress, in a terminal only and not before ``DELAY_S`` seconds."""
    with closing(Progress(_stderr())) as progress:
        timer = threading.Timer(DELAY_S, progress.progress, [what])
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
            timer.join()


@contextmanager
def open_reporting() -> Iterator[Reporter]:
    """Show on standard error what is in progress, as it is told."""
    with closing(Progress(_stderr())) as progress:
        yield progress


@contextmanager
def open_checks() -> Iterator[Callable[[str, str], None]]:
    """Show on standard error which check runs: every check in a terminal, else one line per component."""
    console, shown = _stderr(), set[str]()

    def tell(subject: str, check: str) -> None:
        if console.is_terminal:
            progress.waiting(f"checking {subject}: {check}")
        elif subject not in shown:
            shown.add(subject)
            progress.waiting(f"checking {subject}")

    with closing(Progress(console)) as progress:
        yield tell


@contextmanager
def open_progress(resolved: AnyResolved, what: str) -> Iterator[Reporter]:
    """Show the request, then the progress. Only the first process prints."""
    from reasonrl.runs.launched import is_first_process
    from reasonrl.runs.outline import outline_question

    if not is_first_process():
        yield SilentReporter()
        return
    console = _stderr()
    ConsoleReporter(console).starting(outline_question(resolved, what))
    with closing(Progress(console)) as progress:
        progress.waiting("loading torch and transformers")
        yield progress

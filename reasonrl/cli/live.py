"""Choose between the live view and plain lines, and draw the live view."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group
from rich.live import Live

from reasonrl.cli.console import ConsoleReporter
from reasonrl.cli.live_pace import Pace
from reasonrl.cli.live_view import LiveView
from reasonrl.cli.steady import notice_if_gone
from reasonrl.cli.waiting import Waiting
from reasonrl.observability.reporter import Reporter
from reasonrl.observability.transcripts import transcript_records

if TYPE_CHECKING:  # do not load numpy before the recipe is checked
    from pathlib import Path

    from reasonrl.contracts.data import ScoredGroup, StepRecord
    from reasonrl.evaluation.suites import SuiteResult
    from reasonrl.observability.reporter import EvaluationProgress, Outline, Phase, Plan

log = logging.getLogger(__name__)
SMALLEST = (50, 12)  # columns, rows
REFRESH_S = 1.0


@contextmanager
def open_reporter(plain: bool, environ: Mapping[str, str] = os.environ) -> Iterator[Reporter]:
    """Open the live view if the terminal supports it, else plain lines. Always restores the terminal."""
    console = Console(highlight=False)
    with notice_if_gone("standard output is gone; the run continues, its folder has everything"):
        if plain or not can_show(console, environ):
            yield ConsoleReporter()
            return
        reporter = LiveReporter(console)
        try:
            yield reporter
        finally:
            reporter.close()


def can_show(console: Console, environ: Mapping[str, str] = os.environ) -> bool:
    """Whether this is a large enough interactive terminal, not CI."""
    if not console.is_terminal or not sys.stdout.isatty() or environ.get("CI"):
        return False
    if environ.get("TERM", "dumb") in ("dumb", "unknown", ""):
        return False
    return console.width >= SMALLEST[0] and console.height >= SMALLEST[1]


class LiveReporter(Reporter):
    """Draws a ``LiveView`` below other output, and falls back to plain lines if drawing fails.

    Lock order: ours, then rich's; log records may arrive at any time.
    """

    def __init__(
        self,
        console: Console,
        *,
        refresh_s: float = REFRESH_S,
        clock: Callable[[], float] = time.monotonic,
        plain: ConsoleReporter | None = None,
    ) -> None:
        self._console = console
        self._plain = plain or ConsoleReporter()
        self._refresh_s = refresh_s
        self._clock = clock
        self._lock = threading.RLock()
        self._ended = threading.Event()
        self._live: Live | None = None
        self._view: LiveView | None = None
        self._plan: Plan | None = None
        self._outline: Outline | None = None
        self._waiting = Waiting(console)
        self._size = console.size

    def starting(self, outline: Outline) -> None:
        self._outline = outline
        self._try_draw(lambda: self._plain.starting(outline))

    def waiting(self, what: str) -> None:
        if not self._update(lambda view: view.begin(what, self._clock())):
            self._try_draw(lambda: self._waiting.show(what))

    def progress(self, what: str) -> None:
        self._try_draw(lambda: self._waiting.show(what))

    def planned(self, plan: Plan) -> None:
        self._try_draw(self._waiting.stop)
        self._try_draw(lambda: self._plain.planned(plan))
        ascii_only = not self._console.encoding.lower().startswith("utf")
        with self._lock:
            self._plan = plan
            pace = Pace(plan.total_steps, plan.evaluation_every, self._clock())
            self._view = LiveView(plan.title, pace, ascii_only=ascii_only)
            if plan.past is not None:
                self._view.recall(plan.past)
            self._try_draw(self._start)
        if self._refresh_s > 0:
            threading.Thread(target=self._keep_fresh, name="live-view", daemon=True).start()

    def phase(self, phase: Phase) -> None:
        self._update(lambda view: view.begin(phase, self._clock()))

    def stepped(self, record: StepRecord, total_steps: int, groups: Sequence[ScoredGroup]) -> None:
        sample = pick_sample(record.step, groups)
        is_shown = self._update(lambda view: view.stepped(record.step, record.metrics, sample, self._clock()))
        if not is_shown:
            self._try_draw(lambda: self._plain.stepped(record, total_steps, groups))

    def evaluating(self, progress: EvaluationProgress) -> None:
        """Record progress, which comes with every token; it is drawn at the next refresh."""
        with self._lock:
            view, is_live = self._view, self._live is not None
            if view is not None:
                view.evaluating(progress)
        if not is_live:
            self._try_draw(lambda: self._plain.evaluating(progress))

    def evaluated(self, step: int, results: Sequence[SuiteResult]) -> None:
        suites = {result.name: result.to_json() for result in results}
        if not self._update(lambda view: view.evaluated(step, suites, self._clock())):
            self._try_draw(lambda: self._plain.evaluated(step, results))

    def finished(self, outcome: str, summary: Mapping[str, Any], model_path: Path | None) -> None:
        """Leave the curves on the screen and print the plain summary."""
        view, was_shown = self._view, self._live is not None
        self.close()
        if view is not None and was_shown:
            self._try_draw(lambda: self._console.print(Group(*view.curves(self._console.width))))
        self._try_draw(lambda: self._plain.finished(outcome, summary, model_path))

    def close(self) -> None:
        """Restore the terminal (cursor, standard streams). Idempotent."""
        self._ended.set()
        self._try_draw(self._waiting.stop)
        with self._lock:
            live, self._live = self._live, None
            if live is not None:
                self._try_draw(live.stop)
                self._try_draw(lambda: self._console.show_cursor(True))

    def _update(self, change: Callable[[LiveView], None]) -> bool:
        """Change the view and draw it; False if there is no live view."""
        with self._lock:
            if self._view is None or self._live is None:
                return False
            change(self._view)
            self._try_draw(self._draw)
            return self._live is not None

    def _start(self) -> None:
        # Do not redirect standard error if it is a file.
        stderr_too = sys.stderr.isatty()
        self._size = self._console.size
        self._live = Live(console=self._console, auto_refresh=False, transient=True, redirect_stderr=stderr_too)
        self._live.start()
        self._draw()

    def _draw(self) -> None:
        if self._live is None or self._view is None:
            return
        if self._console.size != self._size:
            self._redraw_all()
            return
        lines = self._view.lines(self._size.width, self._size.height - 1, self._clock())
        self._live.update(Group(*lines), refresh=True)

    def _redraw_all(self) -> None:
        """Clear the screen and start over: a resized terminal has re-wrapped the old lines."""
        assert self._live is not None
        assert self._plan is not None
        self._live.stop()
        self._console.clear()
        if self._outline is not None:
            self._plain.starting(self._outline)
        self._plain.planned(self._plan)
        self._start()

    def _keep_fresh(self) -> None:
        while not self._ended.wait(self._refresh_s):
            with self._lock:
                self._try_draw(self._draw)

    def _try_draw(self, draw: Callable[[], object]) -> None:
        """Draw; on an error switch to plain lines, because the terminal must not fail the run."""
        try:
            draw()
        except Exception:
            live, self._live = self._live, None
            self._ended.set()
            if live is not None:
                self._release(live)
            log.warning("the live view failed; switching to plain lines", exc_info=True)

    def _release(self, live: Live) -> None:
        try:
            live.stop()
        except Exception:
            log.debug("the live view could not be stopped cleanly", exc_info=True)


def pick_sample(step: int, groups: Sequence[ScoredGroup]) -> Mapping[str, Any] | None:
    """Pick one completion of the step, from a different prompt and position each time."""
    if not groups:
        return None
    records = list(transcript_records([groups[step % len(groups)]]))
    return records[step % len(records)] if records else None

"""The live reporter: the terminal it takes and gives back, what it does when that fails, when it stands back."""

from __future__ import annotations

import io
import logging
import os
import pty
import re
import subprocess
import sys
import termios
from typing import Any

import pytest
from rich.console import Console
from support.builders import completion, group, output
from support.live_metrics import live_metrics

from reasonrl import ScoredGroup, StepRecord
from reasonrl.cli.console import ConsoleReporter
from reasonrl.cli.live import LiveReporter, can_show, open_reporter, pick_sample
from reasonrl.evaluation.suites import SuiteResult
from reasonrl.observability.reporter import Plan

PLAN = Plan(title="reasonrl 0: tiny", total_steps=10, lines=[("model", "tiny")], evaluation_every=4)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def scored(step: int) -> list[ScoredGroup]:
    groups = []
    for prompt in range(3):
        done = [completion(text=f"{prompt}-{sample}") for sample in range(2)]
        groups.append(ScoredGroup(group=group(done), rewards=(output(1.0, correct=True), output(0.0))))
    return groups


def run_through(reporter: Any) -> None:
    reporter.planned(PLAN)
    reporter.phase("evaluating")
    reporter.evaluated(0, [SuiteResult(name="s", problems=4, samples=1, ci95=(0.1, 0.3), groups=(), metrics=FIGURES)])
    for step in (1, 2):
        reporter.phase("sampling")
        reporter.stepped(StepRecord(step=step, metrics=live_metrics(step), timing_s={}), 10, scored(step))


FIGURES = {"accuracy": 0.2, "format": 1.0, "length_tokens": 9.0}
SUMMARY = {"steps": 2, "wall_s": 3.0, "eval": {"first": {}, "last": {}}}


def terminal(out: io.StringIO) -> tuple[LiveReporter, Console]:
    console = Console(file=out, width=80, height=24, force_terminal=True, _environ={"TERM": "xterm"})
    plain = ConsoleReporter(Console(file=out, width=80, highlight=False, soft_wrap=True))
    return LiveReporter(console, refresh_s=0.0, clock=Clock(), plain=plain), console


def test_a_run_in_a_terminal_hides_the_cursor_and_gives_it_back() -> None:
    out = io.StringIO()
    reporter, _ = terminal(out)
    run_through(reporter)
    assert "step 2/10" in out.getvalue()
    assert "sample of step 2" in out.getvalue()
    assert out.getvalue().rfind("\x1b[?25l") > out.getvalue().rfind("\x1b[?25h")
    reporter.finished("completed", SUMMARY, None)
    reporter.close()
    assert out.getvalue().rfind("\x1b[?25h") > out.getvalue().rfind("\x1b[?25l")
    end = out.getvalue().rpartition("\x1b[?25h")[2]
    assert "completed after 2 steps in 3 s" in end
    assert "reward" in end  # the curves stay


def test_a_log_record_is_printed_above_the_view(capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    out = io.StringIO()
    reporter, _ = terminal(out)
    before = sys.stderr
    run_through(reporter)
    handler = logging.StreamHandler(sys.stderr)
    handler.emit(logging.makeLogRecord({"msg": "a reward failed [bold]", "levelno": logging.WARNING}))
    reporter.close()
    assert sys.stderr is before
    position = out.getvalue().index("a reward failed [bold]")
    assert "step 2/10" in out.getvalue()[position:]  # the view was drawn again below it
    assert capsys.readouterr().err == ""


class Broken(io.StringIO):
    """A terminal that goes away after some writes."""

    left = 12

    def write(self, text: str) -> int:
        self.left -= 1
        if self.left < 0:
            raise OSError("terminal is gone")
        return super().write(text)


@pytest.mark.parametrize("writes", [0, 2, 5])
def test_a_terminal_that_fails_does_not_end_the_run(writes: int, caplog: pytest.LogCaptureFixture) -> None:
    out = Broken()
    out.left = writes
    reporter, console = terminal(io.StringIO())
    console.file = out
    run_through(reporter)
    reporter.finished("completed", SUMMARY, None)
    reporter.close()
    assert "the live view failed" in caplog.text
    assert "step  2/10  reward 0.020" in reporter._plain._console.file.getvalue()  # type: ignore[attr-defined]


def test_a_change_of_size_starts_from_an_empty_screen() -> None:
    out = io.StringIO()
    reporter, console = terminal(out)
    run_through(reporter)
    console.width, console.height = 60, 20
    seen = len(out.getvalue())
    reporter.phase("updating")
    again = out.getvalue()[seen:]
    reporter.close()
    assert "\x1b[2J" in again
    assert again.index("\x1b[2J") < again.index("model       tiny") < again.rindex("step 2/10")


@pytest.mark.parametrize(
    ("environ", "size", "tty", "shown"),
    [
        ({"TERM": "xterm"}, (80, 24), True, True),
        ({"TERM": "xterm"}, (80, 24), False, False),
        ({"TERM": "dumb"}, (80, 24), True, False),
        ({}, (80, 24), True, False),
        ({"TERM": "xterm", "CI": "true"}, (80, 24), True, False),
        ({"TERM": "xterm"}, (40, 24), True, False),
        ({"TERM": "xterm"}, (80, 8), True, False),
    ],
)
def test_only_a_real_terminal_gets_the_live_view(
    environ: dict[str, str], size: tuple[int, int], tty: bool, shown: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: tty)
    console = Console(width=size[0], height=size[1], force_terminal=True)
    assert can_show(console, environ) is shown


def test_plain_lines_where_there_is_no_terminal() -> None:
    with open_reporter(False, {"TERM": "xterm"}) as reporter:
        assert isinstance(reporter, ConsoleReporter)
    with open_reporter(True, {"TERM": "xterm"}) as reporter:
        assert isinstance(reporter, ConsoleReporter)


WATCHED = """
import sys, time
from reasonrl.cli.live import LiveReporter, open_reporter
from reasonrl.observability.reporter import Outline, Plan

with open_reporter("--plain" in sys.argv) as reporter:
    reporter.starting(Outline(title="tiny run"))
    reporter.waiting("loading a model")
    time.sleep(0.5)
    reporter.planned(Plan(title="tiny run", total_steps=3, lines=[]))
    if isinstance(reporter, LiveReporter):
        time.sleep(2.5)
    raise KeyboardInterrupt
"""


@pytest.mark.slow
@pytest.mark.parametrize(("arguments", "is_live"), [([], True), (["--plain"], False)])
def test_in_a_pseudo_terminal(arguments: list[str], is_live: bool) -> None:
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 80))
    environ = {key: value for key, value in os.environ.items() if key not in ("CI", "COLUMNS", "LINES", "NO_COLOR")}
    command = [sys.executable, "-c", WATCHED, *arguments]
    with subprocess.Popen(
        command,
        stdin=theirs,
        stdout=theirs,
        stderr=subprocess.DEVNULL,
        env={**environ, "TERM": "xterm-256color"},
    ) as child:
        os.close(theirs)
        shown = read_all(ours)
        assert child.wait(timeout=30) != 0  # the interrupt reaches the command line
    assert "tiny run" in shown
    assert "loading a model ..." in shown
    drawn_by_itself = re.search(r"0:0[1-9] elapsed", shown)
    assert bool(drawn_by_itself) is is_live
    assert ("\x1b[?25l" in shown) is is_live
    assert shown.rfind("\x1b[?25h") >= shown.rfind("\x1b[?25l")


def read_all(terminal: int) -> str:
    """Until the other side is closed, which Linux reports as an input error."""
    parts = []
    with os.fdopen(terminal, "rb", buffering=0) as stream:
        while True:
            try:
                part = stream.read(4096)
            except OSError:
                break
            if not part:
                break
            parts.append(part)
    return b"".join(parts).decode("utf-8")


def test_the_sample_changes_with_the_step() -> None:
    picked = [pick_sample(step, scored(step)) for step in range(6)]
    assert [p["completion"] for p in picked if p] == ["0-0", "1-1", "2-0", "0-1", "1-0", "2-1"]
    assert pick_sample(1, []) is None

"""What a run says while it runs."""

import io
import re
from pathlib import Path

import pytest
from rich.console import Console
from support.builders import completion, group, output

from reasonrl import FinishReason, ScoredGroup, StepRecord
from reasonrl.cli.console import ConsoleReporter
from reasonrl.evaluation.suites import SuiteResult
from reasonrl.observability.reporter import EvaluationProgress, Outline, Plan


def reporter() -> tuple[ConsoleReporter, io.StringIO]:
    out = io.StringIO()
    return ConsoleReporter(Console(file=out, width=100, highlight=False, soft_wrap=True)), out


def line(**metrics: float) -> str:
    shown, out = reporter()
    values = {key.replace("__", "/"): value for key, value in metrics.items()}
    shown.stepped(StepRecord(step=7, metrics=values, timing_s={"time/step_s": 1.25}), 100, [])
    return out.getvalue()


def test_a_step_is_one_line_of_what_is_known() -> None:
    assert line(train__reward=0.5, train__accuracy=0.25) == "step   7/100  reward 0.500  acc 25.0%  s 1.2\n"


def test_skipped_updates_and_unscored_completions_are_shown() -> None:
    text = line(train__reward=0.5, optim__skipped_updates=2.0, train__unscored_frac=0.125)
    assert text.endswith("[2 non-finite updates skipped]  [12.5% unscored]\n")
    assert "[" not in line(train__reward=0.5, optim__skipped_updates=0.0, train__unscored_frac=0.0)


def test_a_metric_that_is_nan_is_shown_as_it_is() -> None:
    assert "reward nan" in line(train__reward=float("nan"))


def test_text_of_a_model_is_never_markup() -> None:
    shown, out = reporter()
    done = completion((1, 2), text="[bold]3+5[/nonsense]", reason=FinishReason.LENGTH)
    rewards = (output(None, reasons={"r": "raised ValueError"}), output(1.0, correct=True), output(0.0))
    shown.generated(ScoredGroup(group=group([done] * 3), rewards=rewards))
    text = out.getvalue()
    assert text.count("[bold]3+5[/nonsense]") == 3
    assert "[unscored - r: raised ValueError; 2 tokens, finish reason length]" in text
    assert "[correct; 2 tokens" in text
    assert "[wrong; 2 tokens" in text


def test_text_of_a_model_cannot_command_the_terminal() -> None:
    shown, out = reporter()
    done = completion((1, 2), text="a\x1b[2J\x07b\nc\rd\x9b31m\udc80\u202ee")
    shown.generated(ScoredGroup(group=group([done]), rewards=(output(0.0, reasons={"r": "got \x1b[31m"}),)))
    text = out.getvalue()
    assert "a\\x1b[2J\\x07b\nc\\rd\\x9b31m\\udc80\\u202ee\n" in text
    assert "[wrong - r: got \\x1b[31m; 2 tokens" in text
    assert not set(text) & {"\x1b", "\x07", "\r", "\x9b"}


def test_plan_and_end() -> None:
    shown, out = reporter()
    shown.starting(Outline(title="run [x]", lines=[("task", "toy [z]")]))
    shown.waiting("loading model tiny")
    shown.planned(Plan(title="run [x]", total_steps=3, lines=[("model", "tiny [y]")]))
    figures = {"accuracy": 0.1, "ci95": [0.05, 0.2], "format": 0.5, "length_tokens": 20.0, "problems": 9}
    point = {"step": 0, "suite": "held_out", **figures, "suites": {"held_out": figures}}
    after = {**point, "step": 3, "suites": {"held_out": {**figures, "accuracy": 0.4}}}
    summary = {"steps": 3, "wall_s": 61.4, "eval": {"first": point, "last": after}}
    shown.finished("completed", summary, None)
    shown.finished("failed", {**summary, "steps": 1}, None)
    assert "to continue" not in out.getvalue()
    shown.finished("interrupted", {**summary, "steps": 2}, Path("runs/x-1/checkpoints/step_000002"))
    text = out.getvalue()
    assert text.endswith("model: runs/x-1/checkpoints/step_000002\nto continue: reasonrl resume runs/x-1\n")
    assert text.startswith("run [x]\n  task        toy [z]\nloading model tiny ...\n  model       tiny [y]\n\n")
    assert "before (step 0) and after (step 3)" in text
    assert "10.0% (5.0% to 20.0%)" in text
    assert "40.0%" in text
    assert "completed after 3 steps in 61 s" in text
    assert text.count("before (step") == 1
    assert "failed after 1 step in" in text


def suite_result(unscored_frac: float) -> SuiteResult:
    figures = {"accuracy": 0.1, "format": 0.5, "length_tokens": 20.0, "unscored_frac": unscored_frac}
    return SuiteResult(name="held_out", problems=9, samples=1, metrics=figures, ci95=(0.05, 0.2), groups=())


@pytest.mark.parametrize(("frac", "end"), [(0.0, "9 problems\n"), (0.25, "9 problems, 25.0% could not be scored\n")])
def test_an_evaluation_says_how_much_could_not_be_scored(frac: float, end: str) -> None:
    out = io.StringIO()
    ConsoleReporter(Console(file=out, width=200, highlight=False, soft_wrap=True)).evaluated(7, [suite_result(frac)])
    assert out.getvalue().endswith(end)


@pytest.mark.parametrize("width", [60, 80, 100, 200])
def test_a_terminal_never_breaks_a_line_within_a_word(width: int) -> None:
    out = io.StringIO()
    console = Console(file=out, width=width, force_terminal=True, highlight=False, soft_wrap=True)
    shown = ConsoleReporter(console)
    folder = "/home/somebody/" + "a_long_name/" * 20
    lines = [
        ("each step", "48 prompts x 8 = 384 completions of at most 220 tokens; 2 optimizer steps of 192"),
        ("evaluation", "four_numbers: 512 problems x 1, temperature 1; first, last and every 10 steps"),
        ("run folder", folder),
    ]
    shown.starting(Outline(title="reasonrl 0.1.0: countdown_grpo", lines=lines))
    values = {"train/reward": 0.5, "train/accuracy": 0.25, "train/length_tokens": 97.0}
    more = {"train/truncated_frac": 0.125, "policy/entropy": 0.33, "train/unscored_frac": 0.5}
    shown.stepped(StepRecord(step=7, metrics={**values, **more}, timing_s={"time/step_s": 1.25}), 100, [])
    shown.evaluated(7, [suite_result(unscored_frac=0.25)])
    said = re.sub(r"\x1b\[[0-9;]*m", "", out.getvalue())
    assert all(len(line.rstrip()) <= width or folder in line for line in said.splitlines())
    words = [word for _, text in lines for word in text.split()]
    assert set(words) <= set(said.split()), "a word was broken"
    indents = [line for line in said.splitlines() if line.startswith("                ")]
    assert not indents, "a continued line begins below the text, not beyond it"
    if width <= 80:
        assert "\n              " in said, "the plan is continued below its text"


def test_a_file_gets_a_line_each_however_long() -> None:
    out = io.StringIO()
    shown = ConsoleReporter(Console(file=out, width=20, highlight=False, soft_wrap=True))
    shown.starting(Outline(title="x", lines=[("label", "word " * 40)]))
    assert out.getvalue().count("\n") == 2


def test_a_long_evaluation_is_reported_twice_a_minute() -> None:
    out, now = io.StringIO(), [0.0]
    shown = ConsoleReporter(Console(file=out, width=80, soft_wrap=True), clock=lambda: now[0])
    for _ in range(2):
        shown.phase("evaluating")
        for done in range(0, 100, 5):
            now[0] += 4.0
            shown.evaluating(EvaluationProgress(suite="s", done=done, total=1000))
    lines = out.getvalue().splitlines()
    done = [f"evaluated {count} of 1,000 problems" for count in (40, 80)]
    assert lines[:3] == ["evaluating 1,000 problems ...", *done]
    assert len(lines) == 6

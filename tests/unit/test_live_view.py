"""The live view: what it draws in how many columns, what it makes of hostile text, when it stands back."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console
from support.live_metrics import live_metrics

from reasonrl.cli.live_pace import Pace
from reasonrl.cli.live_text import bars
from reasonrl.cli.live_view import LiveView
from reasonrl.observability.reporter import EvaluationProgress, Past

HOSTILE = "\x1b[2J\x1b[31mred\x07\r[bold]no markup[/bold]\n\n" + (
    "\u202eevil\u200d 漢字漢字 👩\u200d👩 e\u0301\u0302\u0303\u0304 end"
)


def record(**fields: Any) -> dict[str, Any]:
    return {
        "prompt": "Numbers: 1 11 3. Target: 15.\n<think>\n",
        "completion": "1*3=3, 3+11=14 no\n1+11=12, 12+3=15 yes",
        "reward": 1.0,
        "correct": True,
        "reasons": {"countdown": "ok"},
        "completion_tokens": 36,
        "finish_reason": "eos",
        **fields,
    }


def figures(accuracy: float) -> Mapping[str, Any]:
    return {"accuracy": accuracy, "ci95": [accuracy - 0.02, accuracy + 0.02]}


def watched(steps: int = 45, **sample: Any) -> LiveView:
    view = LiveView("reasonrl 0.1.0: countdown_grpo", Pace(100, 50, 0.0))
    view.begin("evaluating", 1.0)
    view.evaluated(0, {"held_out": figures(0.163), "a_suite_of_a_long_name": figures(0.05)}, 5.0)
    for step in range(1, steps + 1):
        view.begin("sampling", 5.0 + 2.0 * (step - 1))
        extra = {"optim/skipped_updates": 2.0, "train/unscored_frac": 0.125} if step == 3 else {}
        view.stepped(step, {**live_metrics(step), **extra}, record(**sample), 5.0 + 2.0 * step)
    view.begin("evaluating", 95.0)
    view.evaluated(50, {"held_out": figures(0.308), "a_suite_of_a_long_name": figures(0.07)}, 99.0)
    return view


def text_of(view: LiveView, width: int, height: int, now: float = 99.0) -> list[str]:
    return [line.plain for line in view.lines(width, height, now)]


@pytest.mark.parametrize(("width", "height"), [(60, 20), (80, 23), (120, 39)])
def test_the_view_fits_and_shows_the_figures(width: int, height: int) -> None:
    lines = text_of(watched(), width, height)
    text = "\n".join(lines)
    assert len(lines) <= height
    assert max(map(cell_len, lines)) <= width
    assert "step 45/100" in text
    assert "1:39 elapsed" in text
    for shown in ("45.0%", "0.450", "85", "0.300", "2.0e-04", "1.0%", "12,346", "6,543"):
        assert shown in text
    held_out = next(line for line in lines if line.startswith("held_out "))
    assert held_out.endswith("  30.8% (28.8 to 32.8)    16.3% (14.3 to 18.3)")
    assert ("a_suite_o..." if width == 60 else "a_suite_of_a_long_name"[:17] + "...") in text
    assert "! 2 updates skipped (non-finite), last in step 3" in text
    assert "! 12.5% of completions unscored in step 3" in text
    assert "sample of step 45: correct (countdown: ok)" in text
    assert "rate" not in text  # the learning rate belongs to imitation


def test_a_sparkline_holds_the_last_forty_steps_and_its_range() -> None:
    line = next(line for line in text_of(watched(), 80, 23) if line.startswith("tokens"))
    assert line.split()[1] == bars(range(46, 86), 40)[0]
    assert line.endswith("85            46 to 85")
    assert len(line) == 80


def test_curves_use_the_room_of_a_large_terminal() -> None:
    view = watched(45)
    lines = text_of(view, 200, 49)
    assert len(lines) <= 49
    base = next(line.plain for line in view.curves(200) if line.plain.startswith("tokens"))
    assert base[11:56] == bars(range(41, 86), 45)[0], "100 steps, 160 columns: a column each, none left out"
    tall = [line for line in lines if line.startswith(" " * 11) and "█" in line]
    assert len(tall) == 3, "the three curves that move are two lines high"
    few = LiveView("few", Pace(20, 0, 0.0))
    for step in range(1, 21):
        few.stepped(step, live_metrics(step), None, 2.0 * step)
    base = next(line for line in text_of(few, 200, 24) if line.startswith("tokens"))
    assert base[11:171] == "".join(char * 8 for char in bars(range(20), 20)[0]), "a step is 8 columns wide"


def test_a_resumed_view_begins_where_the_run_stands() -> None:
    view = LiveView("resumed", Pace(10, 5, 100.0))
    lines = [{"step": s, **live_metrics(s), "time/step_s": 2.0} for s in range(1, 5)]
    lines[2].update({"optim/skipped_updates": 1.0, "train/reward": None})
    point = {"step": 0, "suites": {"held_out": figures(0.163)}}
    view.recall(Past(step=4, metrics=lines, first=point, last=point))
    shown = text_of(view, 80, 23, now=100.0)
    text = "\n".join(shown)
    assert "step 4/10" in text
    assert "about 0:12 left" in text
    assert "at step 0 (95%)" in text
    assert "16.3% (14.3 to 18.3)" in text
    assert "! 1 updates skipped (non-finite), last in step 3" in text
    curve = next(line for line in shown if line.startswith("reward"))
    assert curve[11:27] == "▁▁▁▁▃▃▃▃????████"
    view.stepped(5, live_metrics(5), None, 103.0)
    assert "step 5/10" in text_of(view, 80, 23, now=103.0)[1]


@pytest.mark.parametrize("width", [50, 60, 80, 120])
def test_an_evaluation_has_its_own_progress(width: int) -> None:
    view = watched(45)
    view.begin("evaluating", 100.0)
    view.evaluating(EvaluationProgress(suite="four_numbers", done=0, total=1792))
    assert "about 0:00 left" not in text_of(view, width, 23, now=101.0)[1]
    view.evaluating(EvaluationProgress(suite="four_numbers", done=896, total=1792))
    lines = text_of(view, width, 23, now=110.0)
    assert lines[0].endswith("evaluating four_numbers")
    assert lines[1].startswith("step 45/100 ")
    assert "896/1,792 problems" in lines[1]
    assert cell_len(lines[1]) <= width
    if width >= 80:
        assert lines[1].endswith("left")
        assert abs(lines[1].count("█") - lines[1].count("░")) <= 1, "half of it is done"
    view.evaluated(45, {"held_out": figures(0.3)}, 120.0)
    assert "problems" not in text_of(view, width, 23, now=121.0)[1]


def test_in_few_rows_the_important_stays() -> None:
    lines = text_of(watched(), 80, 8)
    assert len(lines) == 8
    assert lines[0].startswith("reasonrl 0.1.0")
    assert lines[1].startswith("step 45/100")
    assert lines[2].startswith("! 2 updates")


def test_a_long_completion_shows_its_end_and_that_it_is_cut() -> None:
    view = watched(2, completion="\n".join(f"line {n}" for n in range(99)))
    for height in range(8, 30):
        lines = text_of(view, 80, height)
        assert len(lines) <= height
        if any(line.startswith("sample of") for line in lines):
            assert lines[-1] == "  line 98"
    assert "  ..." in text_of(view, 80, 29)
    short = text_of(watched(2, completion="a\nb\nc"), 80, 23)
    assert short[-3:] == ["  a", "  b", "  c"]
    assert "  ..." not in short


def test_a_terminal_made_tiny_is_still_drawn() -> None:
    for width in range(1, 50, 3):
        for height in range(0, 14, 3):
            lines = text_of(watched(2, prompt="漢" * 99), width, height)
            assert len(lines) <= height
            assert all(cell_len(line) <= width for line in lines)


def test_imitation_shows_its_own_figures() -> None:
    view = LiveView("sft", Pace(4, 0, 0.0))
    sft = {"loss/sft": 1.25, "optim/learning_rate": 3e-3, "throughput/train_tokens_per_s": 900.0}
    view.stepped(1, sft, None, 2.0)
    text = "\n".join(text_of(view, 80, 23, now=3.0))
    assert [line.split()[0] for line in text.splitlines() if "▁" in line] == ["loss", "rate", "train"]
    assert "1.2500" in text
    assert "3.0e-03" in text


def test_figures_that_are_not_finite_are_drawn() -> None:
    view = LiveView("x", Pace(4, 0, 0.0))
    for step, value in enumerate((1.0, float("nan"), float("inf")), start=1):
        view.stepped(step, {"train/reward": value}, None, 1.0 * step)
    line = next(line for line in text_of(view, 80, 23) if line.startswith("reward"))
    assert line.split()[1] == "▁" * 10 + "?" * 20  # 40 columns for 4 steps
    assert line.split()[2] == "inf"


GAME = [
    {"role": "assistant", "content": "19\n"},
    {"role": "user", "content": "+ 20 26\n"},
    {"role": "assistant", "content": "I see.\n23\n"},
    {"role": "tool", "content": "=39"},
    {"role": "assistant", "content": ""},
]


def test_both_sides_of_a_conversation_are_told_apart() -> None:
    view = watched(2, messages=GAME, completion="19\n+ 20 26\nI see.\n23\n=39")
    lines = view.lines(80, 39, 99.0)[-6:]
    assert [line.plain for line in lines] == [
        "  model: 19",
        "  task: + 20 26",
        "  model: I see.",
        "         23",
        "  tool: =39",
        "  model: (nothing)",
    ]
    assert ["dim" in str(line.spans) for line in lines] == [False, True, False, False, True, False]
    single = watched(2, messages=GAME[:1], completion="19\n")
    assert text_of(single, 80, 23)[-1] == "  19"


def test_a_long_conversation_shows_its_end() -> None:
    view = watched(2, messages=GAME * 50, completion="x" * 9999)
    for height in range(8, 40):
        lines = text_of(view, 80, height)
        assert len(lines) <= height
        if any(line.startswith("sample of") for line in lines):
            assert lines[-1] == "  model: (nothing)"
    hostile = watched(2, messages=[{"role": "user", "content": HOSTILE}] * 9, completion=HOSTILE)
    assert max(map(cell_len, text_of(hostile, 50, 39))) <= 50
    assert all(line.isprintable() for line in text_of(hostile, 50, 39))


@pytest.mark.parametrize("width", [50, 60, 80, 120])
def test_hostile_text_is_shown_and_does_nothing(width: int) -> None:
    view = watched(2, completion=HOSTILE * 3, prompt=HOSTILE, reasons={"r": HOSTILE})
    view.title = HOSTILE
    lines = text_of(view, width, 39)
    assert max(map(cell_len, lines)) <= width
    assert not [char for line in lines for char in line if not char.isprintable()]
    text = "".join(lines)
    assert "[bold]no markup[/bold]" in text
    out = io.StringIO()
    console = Console(file=out, width=width, height=40, force_terminal=True, color_system=None)
    for line in view.lines(width, 39, 99.0):
        console.print(line)
    assert len(out.getvalue().splitlines()) == len(lines)  # nothing is wrapped, nothing is markup
    assert "\x1b[2J" not in out.getvalue()


def test_sparkline_of_a_terminal_without_unicode() -> None:
    assert bars(range(8), 8, ascii_only=True) == ["_.-~=+*#"]
    view = watched(5, completion="漢")
    view.ascii_only = True
    assert all(line.isascii() for line in text_of(view, 80, 23))

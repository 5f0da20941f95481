"""The small parts of the live view: sanitized text, sparklines, folding, and the time that is left."""

from __future__ import annotations

import pytest

from reasonrl.cli.live_pace import Pace, evaluations_left
from reasonrl.cli.live_text import bars, fit, format_duration, last_lines
from reasonrl.text import sanitize


def test_sanitized_text() -> None:
    assert sanitize("a\tb\nc") == "a  b\nc"
    assert sanitize("\x1b[31m\x9b\r\x00") == "\\x1b[31m\\x9b\\r\\x00"
    assert sanitize("\u202e\u2028\ud800\ufe0f") == "\\u202e\\u2028\\ud800\\ufe0f"
    assert sanitize("漢é👩") == "漢é👩"
    assert sanitize("漢é", ascii_only=True) == "\\u6f22\\xe9"


@pytest.mark.parametrize(
    ("values", "width", "drawn"),
    [
        ([0, 1, 2, 3, 4, 5, 6, 7], 8, "▁▂▃▄▅▆▇█"),
        ([0, 1, 2, 3, 4, 5, 6, 7], 3, "▁▅█"),
        ([5, 5, 5], 8, "▁▁▁"),
        ([1, float("nan"), 2], 8, "▁?█"),
        ([-1.0, 1.0, 0.0], 8, "▁█▅"),
        ([float("nan")], 8, "?"),
        ([], 8, ""),
        ([1, 2], 0, ""),
    ],
)
def test_sparkline(values: list[float], width: int, drawn: str) -> None:
    assert bars(values, width) == [drawn]


def test_bars_of_several_lines_hold_the_same_picture() -> None:
    assert bars([0, 1, 2, 3], 4, rows=2) == ["  ▃█", "▁▆██"]
    assert bars([0, 15], 9, rows=2, ascii_only=True) == [" #", "_#"]
    assert bars([1, float("nan"), 2], 3, rows=3) == ["  █", "  █", "▁?█"]
    assert bars([5, 5], 2, rows=2) == ["  ", "▁▁"]
    assert bars([], 4, rows=2) == ["", ""]


def test_lines_are_folded_and_cut() -> None:
    assert last_lines("a\n\nbcdef\n", 3, 5) == ["a", "bcd", "ef"]
    assert last_lines("a\nb\nc", 3, 2) == ["b", "c"]
    assert last_lines("漢字漢", 4, 5) == ["漢字", "漢"]
    assert last_lines("a", 3, 0) == []
    assert fit("漢字漢字", 7) == "漢字..."
    assert fit("a\nb", 7) == "a b"
    assert format_duration(59.9) == "0:59"
    assert format_duration(3723) == "1:02:03"
    assert format_duration(-1) == "0:00"


@pytest.mark.parametrize(
    ("done", "total", "every", "left"),
    [(0, 10, 4, 3), (4, 10, 4, 2), (8, 10, 4, 1), (10, 10, 4, 0), (0, 8, 4, 2), (0, 10, 0, 1), (9, 10, 0, 1)],
)
def test_evaluations_left(done: int, total: int, every: int, left: int) -> None:
    assert evaluations_left(done, total, every) == left


def test_time_left_counts_steps_and_evaluations() -> None:
    pace = Pace(total_steps=10, evaluation_every=4, started=0.0)
    assert pace.left_s(3.0) is None
    pace.begin_evaluation(5.0)
    pace.evaluated(11.0)  # 6 s; the 5 s before are loading and belong to no step
    pace.stepped(1, 13.0)
    pace.stepped(2, 15.0)
    assert pace.left_s(15.0) == 8 * 2 + 3 * 6
    assert pace.left_s(16.0) == 8 * 2 + 3 * 6 - 1
    pace.stepped(3, 17.0)
    pace.stepped(4, 19.0)
    pace.begin_evaluation(19.0)
    assert pace.left_s(20.0) == 6 * 2 + 2 * 6 + 5
    pace.update_evaluation(0.5)  # half of its problems after 4 s: slower than the one before
    assert pace.left_s(23.0) == 6 * 2 + 2 * 6 + 4
    pace.evaluated(25.0)
    assert pace.left_s(25.0) == 6 * 2 + 2 * 6
    assert pace.left_s(26.0) == 6 * 2 + 2 * 6 - 1
    pace.stepped(5, 27.0)
    assert pace.left_s(27.0) == 5 * 2 + 2 * 6  # the evaluation is no part of the step
    assert pace.left_s(1000.0) == 0.0


def test_the_last_evaluation_has_its_own_time_left() -> None:
    pace = Pace(total_steps=1, evaluation_every=0, started=0.0)
    pace.stepped(1, 10.0)
    pace.begin_evaluation(10.0)
    assert pace.left_s(11.0) is None, "nothing says yet how long an evaluation takes"
    pace.update_evaluation(0.25)
    assert pace.left_s(12.0) == 6.0
    pace.evaluated(18.0)
    assert pace.left_s(18.0) == 0.0


def test_a_resumed_run_knows_how_long_its_steps_take() -> None:
    pace = Pace(total_steps=10, evaluation_every=0, started=100.0)
    pace.recall(4, [2.0, 2.0], [8.0])
    assert pace.left_s(100.0) == 6 * 2 + 8
    pace.stepped(4, 101.0)  # taken before the run was stopped, evaluated only now
    assert pace.left_s(101.0) == 6 * 2 + 8


# The reporter

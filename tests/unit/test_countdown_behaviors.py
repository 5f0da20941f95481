"""Traces worked by hand: every figure of every one of them."""

import math
from typing import Any

import pytest

from reasonrl import TaskContext
from reasonrl_countdown.behaviors import behaviors, read_trace
from reasonrl_countdown.config import CountdownConfig
from reasonrl_countdown.plugin import reasonrl_tasks
from reasonrl_countdown.steps import read_steps
from reasonrl_countdown.task import CountdownTask

FOUND = "5-3=2, 8*2=16 no\n3+5=8, 8*8=64 no\n5+8=13, 13*3=39 yes\n</think>\n<answer>(8+5)*3</answer>"
GAVE_UP = "3+5=8, 8+8=16 no\n5+3=8, 8+8=16 no\nstop\n</think>\n<answer>(3+5)+8</answer>"
FALSE_YES = "8-5=4, 4*3=39 yes\n</think>\n<answer>(8-5)*3</answer>"
CUT = "3*5=15, 15+8=23 no\n8*3=24, 24"
# Four attempts of 2 + 1 + 2 + 2 steps on numbers 3 5 8; the second misuses them, the third has no verdict.
MESSY = "3+8=11, 11-5=6 yes\n3*13=39 no\n8*3=24, 24+5=28\n8*3=24, 24+5=29 no\nstop\n</think>\n<answer>8*3+5"
PROSE = (
    " Let me try. First 3 + 5 = 8.\nThen 8 * 8 = 64. That's too high!\n\n"
    "- (5 + 8) × 3 = 13 * 3 = 39. This works, so that is it.\n</think> <answer>3 * (5 + 8)</answer>"
)


@pytest.mark.parametrize(
    ("completion", "expected"),
    [
        (
            FOUND,
            {
                "attempts": 3,
                "repeated_attempts": 0,
                "true_arithmetic": 1,
                "verification": 1,
                "backtracking": 1,  # both failures are followed by an attempt
                "aimed": 2 / 3,  # 8*8 is not, 8*2 was nearer
                "distinct_strategies": 1,
                "number_use_legal": 1,
                "false_yes": 0,
                "answer_checked": 1,  # 8+5 is 5+8
                "gave_up": 0,
            },
        ),
        (
            GAVE_UP,
            {
                "attempts": 2,
                "repeated_attempts": 1,
                "true_arithmetic": 1,
                "verification": 1,
                "backtracking": 1 / 2,
                "aimed": 1,
                "distinct_strategies": 1 / 2,
                "number_use_legal": 1,
                "answer_checked": 0,  # tried, and found wrong
                "gave_up": 1,
            },
        ),
        (
            FALSE_YES,
            {
                "attempts": 1,
                "repeated_attempts": 0,
                "true_arithmetic": 0,
                "verification": 1,  # the value that it states is the target
                "aimed": 1,
                "distinct_strategies": 1,
                "number_use_legal": 1,
                "false_yes": 1,  # but it is not what comes out
                "answer_checked": 1,
                "gave_up": 0,
            },
        ),
        (
            CUT,
            {
                "attempts": 1,
                "repeated_attempts": 0,
                "true_arithmetic": 1,
                "verification": 1,
                "backtracking": 1,
                "aimed": 1,
                "distinct_strategies": 1,
                "number_use_legal": 1,
                "gave_up": 0,
            },
        ),
        (
            MESSY,
            {
                "attempts": 4,
                "repeated_attempts": 1,  # the last two differ in a result only
                "true_arithmetic": 6 / 7,
                "verification": 1 / 4,
                "backtracking": 2 / 3,
                "aimed": 3 / 4,  # 11-5 is not, 11*5 was nearer
                "distinct_strategies": 3 / 4,
                "number_use_legal": 3 / 4,
                "false_yes": 1,
                "gave_up": 1,
            },
        ),
        (
            PROSE,
            {
                "attempts": 2,
                "repeated_attempts": 0,
                "true_arithmetic": 1,
                "verification": 1,
                "backtracking": 1,
                "aimed": 0,  # the second one ends in three numbers, not two
                "distinct_strategies": 1,
                "number_use_legal": 1,
                "false_yes": 0,
                "answer_checked": 1,
                "gave_up": 0,
            },
        ),
        ("", {"attempts": 0, "repeated_attempts": 0}),
        ("so</think><answer>3*(5+8)</answer>", {"attempts": 0, "repeated_attempts": 0, "answer_checked": 0}),
    ],
)  # fmt: skip
def test_every_figure_by_hand(completion: str, expected: dict[str, float]) -> None:
    assert behaviors(completion, [3, 5, 8], 39) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("text", "aimed"),
    [
        ("3*5=15, 15+8=23", 1),
        ("3*5=15, 8+15=23", 1),
        ("3*5=15, 15-8=7", 0),
        ("5-3=2, 8/2=4", 0),
        ("3-8=-5, 5*8=40", 1),  # 40 is nearer to 39 than 13, 3 and 0
        ("8/3=2.67", 0),  # not a whole number
        ("3-8=0", 0),
        ("5/0=0", 0),
    ],
)
def test_an_aimed_attempt_ends_as_near_as_its_last_two_numbers_allow(text: str, aimed: int) -> None:
    assert behaviors(f"{text} no\n</think>", [3, 5, 8], 39)["aimed"] == aimed


def test_an_open_end_says_nothing_of_giving_up_or_trying_again() -> None:
    assert "backtracking" not in behaviors("3*5=15, 15+8=23 no\n", [3, 5, 8], 39)
    assert behaviors("3*5=15, 15+8=23 no\n", [3, 5, 8], 39)["gave_up"] == 0
    assert behaviors("3*5=15, 15+8=23 no\n</think>", [3, 5, 8], 39)["backtracking"] == 0


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("3+5=8", [([3, 5, "+"], 8, True, None)]),
        ("3+5=9 no", [([3, 5, "+"], 9, False, False)]),
        ("7/2=3 yes", [([7, 2, "/"], 3, False, True)]),
        ("7/2 = 3.5", [([7, 2, "/"], 3.5, True, None)]),
        ("8/3=2.67", [([8, 3, "/"], 2.67, True, None)]),
        ("8/3=2.66", [([8, 3, "/"], 2.66, False, None)]),
        ("5/0=0", [([5, 0, "/"], 0, False, None)]),
        ("(3+5)*8 = 8*8 = 64", [([3, 5, "+", 8, "*"], 64, True, None)]),
        ("3+5=8*8=64", [([3, 5, "+"], 64, False, None)]),  # a running sum is no chain of equal sides
        ("16 = 3+5+8", [([3, 5, "+", 8, "+"], 16, True, None)]),
        ("1. 3+5=8. 2) 8−3=5", [([3, 5, "+"], 8, True, None), ([8, 3, "-"], 5, True, None)]),
        ("(3+5=8) doesn't", [([3, 5, "+"], 8, True, False)]),
        ("3+5=8 ≠ 39", [([3, 5, "+"], 8, True, False)]),
        ("3+5=8 8*2=16 no", [([3, 5, "+"], 8, True, None), ([8, 2, "*"], 16, True, False)]),
        ("3·5÷5=3 ✓", [([3, 5, "*", 5, "/"], 3, True, True)]),
        ("8=8, 2**3=8, 4//2=2, x=3+5, 3+5=, =8, 1234567890+1=1234567891, 2.5*2=5", []),
    ],
)
def test_what_a_step_is(text: str, steps: list[Any]) -> None:
    found = [(s.postfix, float(s.value), s.is_true, s.verdict) for s in read_steps(text)]
    assert found == steps


@pytest.mark.parametrize(
    ("text", "lengths"),
    [
        ("3+5=8, 8*2=16 no\n3*5=15 no", [2, 1]),
        ("3+5=8\n8*2=16\n3*5=15", [2, 1]),  # a line goes on with a result while numbers are left
        ("3+5+2=10, 3*5+2=17, 3*(5+2)=21", [1, 1, 1]),  # all numbers used: the next one is new
        ("3+5=8, 8*2=16\n16-3=13", [2, 1]),
        ("3+5=8, 3+5=8, 8+2=10 no", [3]),  # five numbers where there are three: one attempt, not legal
    ],
)
def test_what_belongs_together(text: str, lengths: list[int]) -> None:
    attempts = read_trace(text + "</think>", 3).attempts
    assert [len(attempt.steps) for attempt in attempts] == lengths


def test_two_halves_are_one_attempt_however_they_are_ordered() -> None:
    one, other = "1+2=3, 3*4=12, 3+12=15 no\n", "4*3=12, 2+1=3, 12+3=15 no\n"
    figures = behaviors(f"{one}{other}</think>", [1, 2, 3, 4], 99)
    assert figures["distinct_strategies"] == 1  # 3*4 took the result of 1+2, 4*3 the number 3
    again = "2+1=3, 4*3=12, 12+3=15 no\n"
    assert behaviors(f"{one}{again}</think>", [1, 2, 3, 4], 99)["distinct_strategies"] == 0.5


def test_the_task_describes_its_own_demonstrations_and_references() -> None:
    import random

    task = CountdownTask(CountdownConfig(template="compact", max_number=20, max_target=100), TaskContext(seed=0))
    for index in range(50):
        problem = task.problem("eval", index)
        figures = task.behaviors(problem, task.demonstration(problem, random.Random(index)))
        assert {figures[k] for k in ("true_arithmetic", "verification", "number_use_legal")} == {1.0}
        assert figures.get("false_yes", 0.0) == 0.0
        assert figures["gave_up"] == 1.0 - figures.get("answer_checked", 0.0)
        reference = task.reference(problem)
        assert reference is not None
        assert task.behaviors(problem, reference)["number_use_legal"] == 1.0


def test_every_figure_is_declared_and_finite() -> None:
    declared = {m.key.removeprefix("behavior/<suite>/") for spec in reasonrl_tasks() for m in spec.metrics}
    seen: set[str] = set()
    for completion in (FOUND, GAVE_UP, FALSE_YES, CUT, MESSY, PROSE):
        figures = behaviors(completion, [3, 5, 8], 39)
        assert all(map(math.isfinite, figures.values()))
        seen |= figures.keys()
    assert seen == declared

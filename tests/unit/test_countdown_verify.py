"""What the verifier accepts and what it does not: every hole of the common regex-and-eval judge, by name."""

import pytest

from reasonrl_countdown import Verdict, verify
from reasonrl_countdown.expression import MAX_CHARS, MAX_DEPTH, MAX_TOKENS, REASONS


@pytest.mark.parametrize(
    ("answer", "numbers", "target"),
    [
        ("3+4", [3, 4], 7),
        ("4 + 3", [3, 4], 7),
        ("(8*5)-12", [5, 8, 12], 28),
        ("8/(3-8/3)", [3, 3, 8, 8], 24),  # only through the fraction 1/3, which no float hits exactly
        ("2-3-4", [2, 3, 4], -5),  # left to right: (2-3)-4
        ("24/4/2", [24, 4, 2], 3),
        ("2+3*4", [2, 3, 4], 14),
        ("\t7\r\n", [7], 7),
        ("((((7))))", [7], 7),
        ("0+5", [0, 5], 5),
        ("(3-4)*(5-9)", [3, 4, 5, 9], 4),  # negative on the way is fine, a sign is not
        ("999999999", [999_999_999], 999_999_999),
    ],
)
def test_a_right_expression_is_ok(answer: str, numbers: list[int], target: int) -> None:
    assert verify(answer, numbers, target) == Verdict(True, "ok")


@pytest.mark.parametrize(
    ("answer", "numbers", "target", "reason"),
    [
        # Operators Python has and Countdown has not.
        ("3**4", [3, 4], 81, "syntax"),
        ("7//2", [7, 2], 3, "syntax"),
        ("2**-1*8", [2, 1, 8], 4, "syntax"),
        ("99**99**9", [99, 99, 9], 1, "syntax"),
        ("9**9**9**9", [9, 9, 9, 9], 1, "syntax"),
        ("7%4", [7, 4], 3, "bad_char"),
        ("3^4", [3, 4], 7, "bad_char"),
        # Two given numbers glued into one token.
        ("1.5", [1, 5], 1, "bad_char"),
        ("6.4-2", [6, 4, 2], 4, "bad_char"),
        ("10.0*5", [10, 0, 5], 50, "bad_char"),
        ("4.*2", [4, 2], 8, "bad_char"),
        ("12", [1, 2], 12, "bad_numbers"),
        ("1_2", [1, 2], 12, "bad_char"),
        ("1e2", [1, 2], 100, "bad_char"),
        # Signs: every operator takes two operands.
        ("-3+5", [3, 5], 2, "unary"),
        ("5*-3+20", [5, 3, 20], 5, "unary"),
        ("+3", [3], 3, "unary"),
        ("3--4", [3, 4], 7, "unary"),
        ("(-3)+5", [3, 5], 2, "unary"),
        # Multiplication left out.
        ("3(4)", [3, 4], 12, "syntax"),
        ("(3)(4)", [3, 4], 12, "syntax"),
        ("3 4", [3, 4], 34, "syntax"),
        ("1 2", [12], 12, "syntax"),
        # Digits and signs outside ASCII, which int() and \\d would take.
        ("٣+٤", [3, 4], 7, "bad_char"),
        ("３+４", [3, 4], 7, "bad_char"),
        ("3×4", [3, 4], 12, "bad_char"),
        ("5−3", [5, 3], 2, "bad_char"),
        ("3\u00a0+4", [3, 4], 7, "bad_char"),
        ("\u2003" * 600, [3], 3, "too_long"),
        # Not an expression.
        ("", [3], 3, "empty"),
        (" \n", [3], 3, "empty"),
        ("3+4 = 7", [3, 4], 7, "equation"),
        ("()", [3], 3, "syntax"),
        ("3+", [3], 3, "syntax"),
        ("(3+4", [3, 4], 7, "syntax"),
        ("3+4)", [3, 4], 7, "syntax"),
        ("07", [7], 7, "syntax"),
        ("00", [0], 0, "syntax"),
        ("__import__('os')", [3], 3, "bad_char"),
        # Not the given numbers, each once.
        ("3+4", [3, 4, 5], 7, "bad_numbers"),
        ("3+4+4-4", [3, 4], 7, "bad_numbers"),
        ("7", [3, 4], 7, "bad_numbers"),
        ("3+3", [3], 6, "bad_numbers"),
        ("3", [3, 3], 3, "bad_numbers"),
        # Wrong.
        ("8/(3-3)", [8, 3, 3], 8, "div_zero"),
        ("0*(1/0)", [0, 0, 1], 0, "div_zero"),
        ("3*4", [3, 4], 7, "wrong_value"),
        ("333333333/999999999", [333_333_333, 999_999_999], 0, "wrong_value"),
        # 1/3 + 1e-9 or so: a float judge with a tolerance of 1e-5 would take it.
        ("999999998/999999999", [999_999_998, 999_999_999], 1, "wrong_value"),
    ],
)
def test_anything_else_is_refused_and_says_why(answer: str, numbers: list[int], target: int, reason: str) -> None:
    assert verify(answer, numbers, target) == Verdict(False, reason)
    assert reason in REASONS


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("9" * 5000, "too_long"),  # int() of so many digits raises ValueError
        ("9" * 10, "too_long"),
        ("(" * 300 + "1" + ")" * 300, "too_long"),
        ("(" * 33, "too_deep"),
        ("-" * 50_000 + "1", "too_long"),
        ("1" + "+1" * 200_000, "too_long"),
        ("(" * 1_000_000, "too_long"),
        ("\ud800", "bad_char"),
        ("\x00", "bad_char"),
    ],
)
def test_hostile_answers_meet_a_limit(answer: str, reason: str) -> None:
    assert verify(answer, [1], 1).reason == reason


def test_limits_are_inclusive() -> None:
    ones = "+".join(["1"] * (MAX_TOKENS // 2))  # 32 ones and 31 signs
    assert verify(ones, [1] * 32, 32).correct
    assert verify(f"({ones}", [1] * 32, 32).reason == "syntax"  # 64 tokens: read, and found wanting
    assert verify(f"({ones})", [1] * 32, 32).reason == "too_long"
    assert verify("1" + " " * (MAX_CHARS - 1), [1], 1).correct
    assert verify("1" + " " * MAX_CHARS, [1], 1).reason == "too_long"
    nested = "(" * (MAX_DEPTH - 1) + "1" + ")" * (MAX_DEPTH - 1)
    assert verify(nested, [1], 1).correct
    assert verify("(" * MAX_DEPTH + "1", [1], 1).reason == "syntax"  # the depth is allowed, the end is missing
    assert verify("(" * (MAX_DEPTH + 1) + "1", [1], 1).reason == "too_deep"


def test_long_chains_of_large_fractions_stay_exact() -> None:
    numbers = [999_999_999 - i for i in range(32)]
    answer = "/".join(map(str, numbers))
    assert verify(answer, numbers, 1) == Verdict(False, "wrong_value")

"""Any text has behaviors, in bounds, and reading it takes time linear in its length."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reasonrl_countdown.behaviors import behaviors

COUNTS = {"attempts", "repeated_attempts"}
WORDS = ["3+5=8", "8*2=16", " yes", " no", "stop\n", "not", "</think>", "<answer>", "</answer>"]
ODD = ["99999999999", "²", "٣", "1.5", "\u2028", "\0"]
PIECES = st.sampled_from([*"0123456789+-*/()=., \n\t×÷", *WORDS, *ODD])
TEXTS = st.one_of(st.text(max_size=200), st.lists(PIECES, max_size=80).map("".join))
NUMBERS = st.lists(st.integers(0, 100), min_size=1, max_size=6)


@settings(max_examples=400)
@given(TEXTS, NUMBERS, st.integers(0, 1000))
def test_total_and_bounded(text: str, numbers: list[int], target: int) -> None:
    figures = behaviors(text, numbers, target)
    for name, value in figures.items():
        assert value >= 0
        assert value <= 1 or name in COUNTS
    assert figures["repeated_attempts"] <= max(0.0, figures["attempts"] - 1)
    assert figures == behaviors(text, numbers, target)


@settings(max_examples=100)
@given(TEXTS)
def test_the_order_of_the_numbers_does_not_matter(text: str) -> None:
    assert behaviors(text, [3, 5, 8], 16) == behaviors(text, [8, 3, 5], 16)


@pytest.mark.parametrize(
    "piece",
    ["1+1=2, ", "2+1=2, ", "3+5=8 no\n", "3+5=8 8", "no ", "n't", "<answer>", *"1(= .", "1+", "1 ", "1="],
)
def test_time_is_linear(piece: str) -> None:
    def seconds(length: int) -> float:
        text = piece * (length // len(piece))
        started = time.process_time()
        behaviors(text, [3, 5, 8], 16)
        return time.process_time() - started

    seconds(1000)
    short, long = (min(seconds(n) for _ in range(2)) for n in (5_000, 40_000))
    assert long < 24 * short + 0.05  # 8 times the text; quadratic time would be 64 times

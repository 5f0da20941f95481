"""The quick test of many problems agrees with the solver, which tries every expression exactly."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reasonrl_countdown import solvable
from reasonrl_countdown.solvable import unsolvable
from reasonrl_countdown.solver import solve

NUMBERS = st.integers(0, 12) | st.integers(0, 99)
PROBLEMS = st.lists(
    st.tuples(st.lists(NUMBERS, min_size=1, max_size=4).map(tuple), st.integers(0, 120)),
    min_size=1,
    max_size=20,
)


@settings(max_examples=60)
@given(PROBLEMS)
def test_it_agrees_with_the_solver(problems: list[tuple[tuple[int, ...], int]]) -> None:
    expected = {i for i, (numbers, target) in enumerate(problems) if not solve(numbers, target, limit=1)}
    assert unsolvable(problems) == expected


@settings(max_examples=5)
@given(st.tuples(st.lists(st.integers(1, 15), min_size=5, max_size=5).map(tuple), st.integers(0, 99)))
def test_it_agrees_about_five_numbers(problem: tuple[tuple[int, ...], int]) -> None:
    """Of numbers so small that two values differ by more than the tolerance, 1 / 15**5 at least."""
    assert unsolvable([problem] * 3) == (set() if solve(*problem, limit=1) else {0, 1, 2})


@pytest.mark.parametrize(
    ("numbers", "target"),
    [((3, 3, 8, 8), 24), ((1, 5, 5, 5), 24), ((4, 4, 10, 10), 24), ((2, 3), 1), ((3, 2, 1), 0), ((7,), 7)],
)
def test_fractions_and_both_orders_of_a_difference_are_found(numbers: tuple[int, ...], target: int) -> None:
    assert unsolvable([(numbers, target)]) == set()


def test_what_cannot_be_known_quickly_is_taken_as_solvable(monkeypatch: pytest.MonkeyPatch) -> None:
    huge = ((999_999_999, 999_999_998), 5)
    hopeless = ((1, 1, 1, 1), 99)
    assert unsolvable([huge, hopeless]) == {1}
    monkeypatch.setattr(solvable, "BUDGET", 2 * solvable.EXPRESSIONS[4] - 1)
    assert unsolvable([hopeless]) == {0}
    assert unsolvable([hopeless, hopeless]) == set()


def test_expressions_are_counted_right() -> None:
    for count in range(2, 7):
        pairs = count * (count - 1) // 2
        assert solvable.EXPRESSIONS[count] == 5 * pairs * solvable.EXPRESSIONS[count - 1]

"""The solver against brute force and against puzzles with known answers."""

from fractions import Fraction
from itertools import permutations, product

import pytest
from reference.countdown_oracle import judge

from reasonrl_countdown import solve, verify


def _reachable(values: tuple[Fraction, ...]) -> set[Fraction]:
    """Brute force: every operation on every pair, in every order."""
    if len(values) == 1:
        return {values[0]}
    found: set[Fraction] = set()
    for i, j in permutations(range(len(values)), 2):
        rest = tuple(v for k, v in enumerate(values) if k not in (i, j))
        a, b = values[i], values[j]
        for result in (a + b, a - b, a * b, *([a / b] if b else [])):
            found |= _reachable((*rest, result))
    return found


@pytest.mark.parametrize(
    ("numbers", "target", "solutions"),
    [
        ([7], 7, ["7"]),
        ([7], 8, []),
        ([3, 5], 2, ["5-3"]),
        ([4, 2], 2, ["4-2", "4/2"]),
        ([2, 2], 4, ["2*2", "2+2"]),
        ([3, 3, 8, 8], 24, ["8/(3-8/3)"]),
        ([1, 5, 6, 7], 21, ["6/(1-5/7)"]),
        ([3, 5, 8], 16, ["(5-3)*8", "3+5+8"]),
        ([1, 1, 1, 1], 99, []),
        ([0, 5], 0, ["0*5", "0/5"]),
    ],
)
def test_known_puzzles(numbers: list[int], target: int, solutions: list[str]) -> None:
    assert sorted(solve(numbers, target)) == solutions


@pytest.mark.parametrize(
    "numbers", [(1, 2, 3), (2, 2, 6), (4, 4, 4), (0, 3, 7), (3, 8, 20), (1, 1, 5, 8), (2, 3, 3, 9)]
)
def test_every_reachable_target_is_solved_and_no_other(numbers: tuple[int, ...]) -> None:
    reachable = _reachable(tuple(Fraction(n) for n in numbers))
    for target in range(-5, 60):
        solutions = solve(numbers, target)
        assert bool(solutions) == (target in reachable)
        assert len(set(solutions)) == len(solutions)
        assert all(judge(s, numbers, target) == "ok" and verify(s, numbers, target).correct for s in solutions)


def test_every_way_to_write_a_three_number_solution_is_covered() -> None:
    """Each right string over all orders, operators and groupings has a solution with its operators."""
    numbers, target = [2, 3, 6], 12
    written = {
        text.format(a, f, b, g, c)
        for a, b, c in permutations(numbers)
        for f, g in product("+-*/", repeat=2)
        for text in ("({}{}{}){}{}", "{}{}({}{}{})")
    }
    right = [text for text in written if judge(text, numbers, target) == "ok"]
    assert {_signs(s) for s in solve(numbers, target)} == {_signs(s) for s in right} != set()


def _signs(text: str) -> str:
    return "".join(sorted(c for c in text if c in "+-*/"))


def test_differences_of_either_sign_are_solutions_of_their_own() -> None:
    """Negative values on the way count; without a unary minus the two are different expressions."""
    solutions = solve([3, 4, 5, 9], 4)
    assert {"(3-4)*(5-9)", "(4-3)*(9-5)"} <= set(solutions)


def test_limit_and_order() -> None:
    everything = solve([1, 2, 3, 4], 10)
    assert solve([1, 2, 3, 4], 10, limit=2) == everything[:2]
    assert solve([4, 3, 2, 1], 10) == everything
    assert solve([1, 2, 3, 4], 10, limit=0) == []


def test_six_numbers_with_a_limit() -> None:
    (solution,) = solve([3, 6, 25, 50, 75, 100], 952, limit=1)
    assert verify(solution, [3, 6, 25, 50, 75, 100], 952).correct


@pytest.mark.parametrize("numbers", [[], [3, -4]])
def test_numbers_that_cannot_be_written_are_refused(numbers: list[int]) -> None:
    with pytest.raises(ValueError, match="non-empty and not negative"):
        solve(numbers, 1)

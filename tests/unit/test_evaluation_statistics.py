"""Intervals, pass@k and maj@k against hand values and enumeration."""

import itertools
import math

import pytest

from reasonrl.evaluation.statistics import accuracy_interval, majority_vote, pass_at_k, wilson_interval


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [
        # Newcombe 1998, Statistics in Medicine 17, table I, method 3.
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
        # By hand: z^2/n = 0.0384146, (0.5 + 0.0192073 -+ 1.96 * sqrt(0.0025 + 0.0000960)) / 1.0384146.
        (50, 100, 0.4038, 0.5962),
    ],
)
def test_wilson_against_published_values(successes: int, trials: int, low: float, high: float) -> None:
    assert wilson_interval(successes, trials) == pytest.approx((low, high), abs=5e-5)


def test_wilson_at_the_ends() -> None:
    assert wilson_interval(0, 0) == (0.0, 1.0)
    low, high = wilson_interval(20, 20)
    assert high == 1.0
    assert low == pytest.approx(1.0 - wilson_interval(0, 20)[1], abs=1e-12)
    assert wilson_interval(0, 20)[0] == 0.0


def test_one_sample_a_problem_is_wilson() -> None:
    assert accuracy_interval([[True], [False], [False], [True], [False]]) == wilson_interval(2, 5)
    assert accuracy_interval([]) == (0.0, 1.0)
    assert accuracy_interval([[True, True, False]]) == wilson_interval(2 / 3, 1)


def test_samples_that_always_agree_count_once_a_problem() -> None:
    """Eight samples that are all alike say as much as one: the interval is that of the problems."""
    problems = [[n < 30] * 8 for n in range(100)]
    low, high = accuracy_interval(problems)
    expected = wilson_interval(30, 100)
    assert low == pytest.approx(expected[0], abs=0.002)
    assert high == pytest.approx(expected[1], abs=0.002)


def test_independent_samples_count_nearly_all() -> None:
    """Problems of one difficulty: p(1-p)/n samples is the variance of the mean, so trials are about all samples."""
    patterns = list(itertools.product([True, False], repeat=4)) * 4
    low, high = accuracy_interval(patterns)
    expected = wilson_interval(128, 256)
    assert high - low == pytest.approx(expected[1] - expected[0], rel=0.02)
    assert (low + high) / 2 == pytest.approx(0.5)


def test_equal_problems_never_count_more_than_all_samples() -> None:
    assert accuracy_interval([[True, False]] * 5) == wilson_interval(5, 10)
    assert accuracy_interval([[True, True]] * 5) == wilson_interval(5, 5)


@pytest.mark.parametrize("n", [1, 2, 4, 5])
def test_pass_at_k_is_the_share_of_subsets_with_a_right_one(n: int) -> None:
    for right in range(n + 1):
        outcomes = [True] * right + [False] * (n - right)
        for k in range(1, n + 1):
            subsets = list(itertools.combinations(outcomes, k))
            share = sum(map(any, subsets)) / len(subsets)
            assert pass_at_k(n, right, k) == pytest.approx(share, abs=1e-12)
            assert len(subsets) == math.comb(n, k)


@pytest.mark.parametrize("k", [0, 5])
def test_pass_at_k_refuses_a_k_it_cannot_estimate(k: int) -> None:
    with pytest.raises(ValueError, match=r"k must be in \[1, 4\]"):
        pass_at_k(4, 1, k)


@pytest.mark.parametrize(
    ("answers", "correct", "expected"),
    [
        (["a", "a", "b"], [True, True, False], 1.0),
        (["a", "b", "b"], [True, False, False], 0.0),
        (["a", "b"], [True, False], 0.5),
        (["a", "b", "c"], [False, True, False], 1 / 3),
        ([None, None, "a"], [False, False, True], 1.0),
        ([None, None], [False, False], 0.0),
        ([], [], 0.0),
        (["a", "a", "b", "b", "c"], [True, True, False, False, False], 0.5),
    ],
)
def test_the_majority_vote(answers: list[str | None], correct: list[bool], expected: float) -> None:
    assert majority_vote(answers, correct) == pytest.approx(expected)


def test_the_effective_number_of_trials_by_hand() -> None:
    """Means 1, 0, 1/2: variance of their mean (0.25 + 0.25 + 0) / 2 / 3 = 1/12; p(1-p) / that = 3 trials."""
    assert accuracy_interval([[True, True], [False, False], [True, False]]) == wilson_interval(1.5, 3)

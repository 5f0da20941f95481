"""Intervals, pass@k and maj@k against hand values and enumeration."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reference import subsets

from reasonrl.statistics.proportions import accuracy_interval, mean_interval, wilson_interval
from reasonrl.statistics.samples import majority_at_k, pass_at_k


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


@given(st.data(), st.integers(1, 9))
def test_pass_at_k_is_the_share_of_subsets_with_a_correct_one(data: st.DataObject, n: int) -> None:
    right, k = data.draw(st.integers(0, n)), data.draw(st.integers(1, n))
    assert pass_at_k(n, right, k) == pytest.approx(subsets.pass_at_k([i < right for i in range(n)], k), abs=1e-12)


@given(st.lists(st.sampled_from(["a", "b", "c", "d", None]), min_size=1, max_size=8), st.sets(st.sampled_from("abcd")))
def test_majority_at_k_is_the_mean_over_subsets(answers: list[str | None], right: set[str]) -> None:
    correct = [answer in right for answer in answers]
    for k in range(1, len(answers) + 1):
        expected = subsets.majority_at_k(answers, correct, k)
        assert majority_at_k(answers, correct, k) == pytest.approx(expected, abs=1e-12)


def test_many_samples_are_counted_not_enumerated() -> None:
    """C(64, 32) is 2e18. By symmetry half of the subsets have more a than b."""
    answers = ["a", "b"] * 31 + [None] * 2
    assert majority_at_k(answers, [answer == "a" for answer in answers], 32) == pytest.approx(0.5, abs=1e-12)


@given(st.lists(st.fractions(0, 1, max_denominator=8), min_size=1, max_size=12), st.integers(1, 8))
def test_intervals_solve_the_score_equation(values: list[float], samples: int) -> None:
    means = [float(value) for value in values]
    expected = subsets.mean_interval(means, len(means) * samples)
    assert mean_interval(means, len(means) * samples) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("k", [0, 5])
def test_pass_at_k_refuses_a_k_it_cannot_estimate(k: int) -> None:
    with pytest.raises(ValueError, match=r"k must be in \[1, 4\]"):
        pass_at_k(4, 1, k)
    with pytest.raises(ValueError, match=r"k must be in \[1, 4\]"):
        majority_at_k(["a"] * 4, [True] * 4, k)


@pytest.mark.parametrize(
    ("answers", "correct", "expected"),
    [
        (["a", "a", "b"], [True, True, False], 1.0),
        (["a", "b", "b"], [True, False, False], 0.0),
        (["a", "b"], [True, False], 0.5),
        (["a", "b", "c"], [False, True, False], 1 / 3),
        ([None, None, "a"], [False, False, True], 1.0),
        ([None, None], [False, False], 0.0),
        (["a", "a", "b", "b", "c"], [True, True, False, False, False], 0.5),
    ],
)
def test_the_majority_vote(answers: list[str | None], correct: list[bool], expected: float) -> None:
    assert majority_at_k(answers, correct, len(answers)) == pytest.approx(expected)


def test_the_effective_number_of_trials_by_hand() -> None:
    """Means 1, 0, 1/2: variance of their mean (0.25 + 0.25 + 0) / 2 / 3 = 1/12; p(1-p) / that = 3 trials."""
    assert accuracy_interval([[True, True], [False, False], [True, False]]) == wilson_interval(1.5, 3)

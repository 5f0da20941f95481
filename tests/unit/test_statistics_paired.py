"""Comparisons against enumeration and tables, and how often they are right in simulated evaluations."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from reference import paired as oracle

from reasonrl.statistics import student
from reasonrl.statistics.paired import (
    Difference,
    Floats,
    bootstrap,
    compare_blocks,
    compare_problems,
    compare_seeds,
    mcnemar,
    sign_flip,
)

REPETITIONS = 1000
SLACK = 3 * math.sqrt(0.25 / REPETITIONS)
"""Three standard errors of a share of the repetitions."""


@pytest.mark.parametrize(
    ("probability", "df", "expected"),
    [  # tables of Student's t
        (0.975, 1, 12.7062),
        (0.975, 2, 4.3027),
        (0.975, 5, 2.5706),
        (0.975, 30, 2.0423),
        (0.8, 10, 0.8791),
        (0.975, 1e6, 1.95997),
    ],
)
def test_quantiles_of_student(probability: float, df: float, expected: float) -> None:
    assert student.quantile(probability, df) == pytest.approx(expected, abs=6e-5)
    assert student.two_sided_p(expected, df) == pytest.approx(2 * (1 - probability), rel=2e-4)


@pytest.mark.parametrize(("df", "exact"), [(1, 2 * math.atan(1 / 3) / math.pi), (2, 1 - 3 / math.sqrt(11))])
def test_student_in_closed_form(df: float, exact: float) -> None:
    assert student.two_sided_p(3.0, df) == pytest.approx(exact, rel=1e-10)


@given(st.integers(0, 6), st.integers(0, 6))
def test_mcnemar_is_the_share_of_assignments(only_a: int, only_b: int) -> None:
    assert mcnemar(only_a, only_b) == pytest.approx(oracle.mcnemar(only_a, only_b), abs=1e-12)


@settings(max_examples=20)
@given(st.lists(st.sampled_from([-1.0, -0.5, -0.25, 0.0, 0.25, 0.75, 1.0]), min_size=1, max_size=8))
def test_resampling_approaches_enumeration(differences: list[float]) -> None:
    d = np.array(differences)
    assert sign_flip(d) == pytest.approx(oracle.sign_flip(differences), abs=0.02)
    if len(d) > 5:
        return
    means = oracle.bootstrap_means(differences)
    share = len(means)
    for found, probability in zip(bootstrap(d), (0.025, 0.975), strict=True):
        below, up_to = sum(m < found - 1e-9 for m in means) / share, sum(m <= found + 1e-9 for m in means) / share
        assert below - 0.01 <= probability <= up_to + 0.01


RUNS = arrays(np.float64, st.tuples(st.integers(1, 4), st.just(6)), elements=st.sampled_from([0.0, 0.25, 0.5, 1.0]))


@settings(max_examples=30)
@given(RUNS, RUNS)
def test_the_variance_of_seeds_is_that_of_the_two_way_layout(a: Floats, b: Floats) -> None:
    if len(a) == len(b) == 1:
        return
    variance, df = oracle.seeds_interval(a.tolist(), b.tolist())
    found = compare_seeds(a, b)
    assert found.value == pytest.approx(b.mean() - a.mean())
    if variance > 1e-15:
        half = student.quantile(0.975, df) * math.sqrt(variance)
        ends = (max(-1.0, found.value - half), min(1.0, found.value + half))
        assert (found.low, found.high) == pytest.approx(ends, rel=1e-6)


def test_one_difference_a_seed_by_hand() -> None:
    """Mean 0.2, standard error 0.1 / sqrt(3), 2 degrees of freedom: half-width 4.3027 * 0.05774."""
    found = compare_blocks([0.1, 0.2, 0.3])
    assert (found.value, found.low, found.high) == pytest.approx((0.2, 0.2 - 0.24841, 0.2 + 0.24841), abs=1e-4)
    assert found.p_value == pytest.approx(0.0742, abs=1e-4)


def test_equal_evaluations_do_not_differ() -> None:
    same = np.array([1.0, 0.0, 1.0])
    found = compare_problems(same, same)
    assert (found.value, found.low, found.high, found.p_value) == (0.0, 0.0, 0.0, 1.0)
    assert compare_seeds(np.array([same, same]), np.array([same])).p_value == 1.0
    assert compare_blocks([0.0, 0.0]).p_value == 1.0


def test_one_problem_says_nothing() -> None:
    found = compare_seeds(np.array([[1.0], [0.0]]), np.array([[1.0]]))
    assert (found.low, found.high, found.p_value) == (-1.0, 1.0, 1.0)
    assert compare_problems(np.array([0.0]), np.array([1.0])).p_value == 1.0


def test_a_few_equal_differences_are_no_proof() -> None:
    """Without any variance the sign test remains: 2 / 2^n."""
    assert compare_seeds(np.zeros((2, 3)), np.ones((2, 3))).p_value == 0.25
    assert compare_blocks([0.1, 0.1, 0.1]).p_value == pytest.approx(0.25)
    assert compare_seeds(np.ones((2, 3)), np.ones((2, 3))).p_value == 1.0
    wide = compare_blocks([0.9, -0.2])
    assert (wide.low, wide.high) == (-1.0, 1.0)


# Simulations: problems of all difficulties, that both models find about equally hard.


def share_found(found: list[Difference]) -> float:
    return sum(one.p_value < 0.05 for one in found) / len(found)


def pairs(*, problems: int, shift: float) -> list[Difference]:
    rng = np.random.default_rng(11)
    found = []
    for _ in range(REPETITIONS):
        hardness = rng.uniform(0.1, 0.9 - shift, problems)
        a, b = ((rng.random(problems) < hardness + better).astype(np.float64) for better in (0.0, shift))
        found.append(compare_problems(a, b, resamples=400))
    return found


@pytest.mark.slow
def test_two_equal_models_do_not_differ_at_the_stated_level() -> None:
    found = pairs(problems=500, shift=0.0)
    assert share_found(found) <= 0.05 + 0.015
    assert sum(one.low <= 0.0 <= one.high for one in found) / len(found) >= 0.93


@pytest.mark.slow
def test_five_points_are_found_with_the_stated_power() -> None:
    """With 1,320 problems, 5 points are what is found in 80% of cases; the interval covers them in 95%."""
    found = pairs(problems=1320, shift=0.05)
    assert np.mean([one.detectable for one in found]) == pytest.approx(0.05, abs=0.002)
    assert share_found(found) == pytest.approx(0.8, abs=SLACK)
    assert sum(one.low <= 0.05 <= one.high for one in found) / len(found) == pytest.approx(0.95, abs=0.02)


def seed_pairs(*, runs: int, problems: int, shift: float, seed_sd: float) -> list[Difference]:
    rng = np.random.default_rng(12)
    found = []
    for _ in range(REPETITIONS):
        hardness = rng.uniform(0.2, 0.8 - shift, problems)
        a, b = (
            (rng.random((runs, problems)) < hardness + better + seed_sd * rng.standard_normal((runs, 1))).astype(float)
            for better in (0.0, shift)
        )
        found.append(compare_seeds(a, b))
    return found


@pytest.mark.slow
@pytest.mark.parametrize(("runs", "seed_sd"), [(2, 0.0), (5, 0.04)])
def test_seeds_of_one_setting_do_not_differ_at_the_stated_level(runs: int, seed_sd: float) -> None:
    """Runs whose true accuracies differ by chance: a test that ignores them finds differences in up to 40%."""
    found = seed_pairs(runs=runs, problems=400, shift=0.0, seed_sd=seed_sd)
    assert share_found(found) <= 0.05 + 0.02


@pytest.mark.slow
def test_five_points_over_seeds_are_found_with_the_stated_power() -> None:
    found = seed_pairs(runs=5, problems=800, shift=0.05, seed_sd=0.018)
    assert np.median([one.detectable for one in found]) == pytest.approx(0.05, abs=0.003)
    assert share_found(found) == pytest.approx(0.8, abs=0.05)

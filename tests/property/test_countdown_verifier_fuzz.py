"""The verifier against an independent judge, on well-formed, damaged, hostile and random answers."""

import logging
import random
import time

import pytest
from reference.countdown_oracle import HOSTILE, judge, random_case

from reasonrl_countdown import verify

PASSED_THROUGH = {"ok", "wrong_value", "bad_numbers", "div_zero"}
_log = logging.getLogger(__name__)


def _differs(answer: str, numbers: list[int], target: int) -> bool:
    verdict = verify(answer, numbers, target)
    expected = judge(answer, numbers, target)
    reason = verdict.reason if verdict.reason in PASSED_THROUGH else "refused"
    return reason != expected or verdict.correct != (expected == "ok")


def test_verify_agrees_with_the_oracle_on_5000_random_answers() -> None:
    rng = random.Random(20260)
    cases = [random_case(rng) for _ in range(5_000)]
    assert [case for case in cases if _differs(*case)] == []
    num_right = sum(verify(*case).correct for case in cases)
    assert 0.2 < num_right / len(cases) < 0.5  # the comparison sees both sides


def test_verify_agrees_with_the_oracle_on_every_hostile_answer() -> None:
    for numbers, target in (([3, 4], 7), ([3], 3), ([1, 0], 0), ([999_999_999], 999_999_999)):
        assert [answer for answer in HOSTILE if _differs(answer, numbers, target)] == []


@pytest.mark.slow
@pytest.mark.parametrize("count", [50_000, pytest.param(1_000_000, marks=pytest.mark.long)])
def test_verify_agrees_with_the_oracle_on_many_random_answers(count: int) -> None:
    """Logs the 99.99th percentile of CPU time; show it with ``--log-cli-level=INFO``."""
    rng = random.Random(7)
    nanoseconds: list[int] = []
    num_right = 0
    for _ in range(count):
        answer, numbers, target = random_case(rng)
        start = time.thread_time_ns()
        verdict = verify(answer, numbers, target)
        nanoseconds.append(time.thread_time_ns() - start)
        num_right += verdict.correct
        assert not _differs(answer, numbers, target), (answer, numbers, target)
    nanoseconds.sort()
    worst, p9999, median = (nanoseconds[i] / 1000 for i in (-1, -(count // 10_000), count // 2))
    _log.info("verify: median %.1f us, p99.99 %.1f us, max %.1f us, %d right", median, p9999, worst, num_right)

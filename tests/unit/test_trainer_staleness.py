"""The warning about completions of another policy."""

import logging

import pytest

from reasonrl.trainer.staleness import GapWatch

KEY = "rollout/logprob_gap"


def test_a_gap_over_the_limit_is_warned_about_once_until_it_doubles(caplog: pytest.LogCaptureFixture) -> None:
    watch = GapWatch(is_float32=True)
    gaps = [1e-6, 0.01, 0.011, 0.019, 0.02, 0.03]
    with caplog.at_level(logging.WARNING):
        said = [watch.look(step, {KEY: gap}) for step, gap in enumerate(gaps, 1)]
    assert said == [False, True, False, False, True, False]
    assert "step 2: sampler and trainer differ by 0.01 nats per token" in caplog.text
    assert "stale weights" in caplog.text


def test_lower_precision_has_a_higher_limit_and_no_figure_is_no_news() -> None:
    watch = GapWatch(is_float32=False)
    assert not watch.look(1, {KEY: 0.02})
    assert not watch.look(2, {})
    assert not watch.look(3, {KEY: float("nan")})
    assert watch.look(4, {KEY: 0.06})

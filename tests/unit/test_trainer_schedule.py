"""The learning rate of a run whose length is changed on its way never jumps."""

import random
from typing import Any

import pytest

from reasonrl.recipe.schema import OptimizerConfig
from reasonrl.trainer.schedule import Schedule, describe_replan, open_schedule

SCHEDULES = ["constant", "linear", "cosine"]


def rates(schedule: Schedule) -> list[float]:
    return [schedule.factor(step) for step in range(1, schedule.plans[-1][1] + 1)]


def relengthened(config: OptimizerConfig, *lengths: tuple[int, int]) -> Schedule:
    """A run that is resumed after a step with a length, again and again."""
    schedule = open_schedule(config, lengths[0][1])
    for after, total in lengths[1:]:
        schedule = open_schedule(config, total, after=after, progress={"plans": schedule.to_json()})
    return schedule


def test_a_longer_linear_run_by_hand() -> None:
    config = OptimizerConfig(schedule="linear")
    assert rates(relengthened(config, (0, 4), (2, 6))) == [1.0, 0.75, 0.75, 0.5625, 0.375, 0.1875]
    assert rates(relengthened(config, (0, 4), (4, 6))) == [1.0, 0.75, 0.5, 0.25, 0.25, 0.125]
    assert rates(relengthened(config, (0, 4), (2, 3))) == [1.0, 0.75, 0.75]


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("after", [0, 1, 3])
def test_a_new_length_before_the_rate_comes_down_is_as_good_as_the_first(schedule: Any, after: int) -> None:
    config = OptimizerConfig(schedule=schedule, warmup_steps=3)
    longer = relengthened(config, (0, 5), (after, 9))
    assert rates(longer) == rates(open_schedule(config, 9))
    assert describe_replan(longer, after) == ""


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("seed", range(20))
def test_the_rate_never_jumps_and_comes_down_at_the_end(schedule: Any, seed: int) -> None:
    rng = random.Random(seed)
    config = OptimizerConfig(schedule=schedule, warmup_steps=rng.randrange(4))
    lengths, after = [(0, rng.randrange(5, 40))], 0
    for _ in range(rng.randrange(1, 4)):
        after = rng.randrange(after, lengths[-1][1] + 1)
        lengths.append((after, after + rng.randrange(1, 40)))
    found = rates(relengthened(config, *lengths))
    assert all(0 < rate <= 1 for rate in found)
    after_warmup = found[max(config.warmup_steps - 1, 0) :]
    assert after_warmup == sorted(after_warmup, reverse=True)
    if schedule == "constant":
        assert set(after_warmup) <= {1.0}
    for after, _ in lengths[1:]:
        if config.warmup_steps < after < len(found):
            assert found[after] == pytest.approx(found[after - 1], abs=1e-12)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_resumed_run_of_the_same_length_keeps_its_rates(schedule: Any) -> None:
    config = OptimizerConfig(schedule=schedule, warmup_steps=2)
    whole = open_schedule(config, 9)
    resumed = open_schedule(config, 9, after=4, progress={"plans": whole.to_json()})
    assert resumed == whole
    longer = relengthened(config, (0, 9), (4, 20))
    assert open_schedule(config, 20, after=7, progress={"plans": longer.to_json()}) == longer


def test_what_is_said_about_a_new_length() -> None:
    config = OptimizerConfig(schedule="linear", learning_rate=1e-3)
    said = describe_replan(relengthened(config, (0, 4), (2, 6)), 2)
    assert said == (
        "optimizer.schedule=linear was planned for 4 steps: from step 3 the learning rate decays from its current "
        "0.00075 to 0 at step 6"
    )
    low = describe_replan(relengthened(config, (0, 100), (100, 200)), 100)
    assert "decays from its current 1e-05 to 0 at step 200; for a higher rate start a new run" in low
    assert describe_replan(relengthened(config, (0, 4), (2, 6)), 4) == ""
    assert describe_replan(relengthened(OptimizerConfig(), (0, 4), (2, 6)), 2) == ""

"""The kit's checks of both components; the reward runs in its own process as in training."""

from reasonrl.testing import RewardConformance, TaskConformance


class TestCode(TaskConformance):
    spec = "code"


class TestBase(TaskConformance):
    spec = "code"
    config = {"template": "base"}  # noqa: RUF012 - the kit's way


class TestReward(RewardConformance):
    spec = "tests_passed"
    task = "code"

"""The kit's checks of every component; the boxed reward runs in its own process as in training."""

from reasonrl.testing import RewardConformance, TaskConformance


class TestMath(TaskConformance):
    spec = "math"


class TestMultiplication(TaskConformance):
    spec = "multiplication"


class TestCompactMultiplication(TaskConformance):
    spec = "multiplication"
    config = {"template": "compact", "min_factor": 2, "max_factor": 40}  # noqa: RUF012 - the kit's way


class TestBoxed(RewardConformance):
    spec = "math_boxed"
    task = "math"


class TestThinkFormat(RewardConformance):
    spec = "think_format"
    task = "math"


class TestProduct(RewardConformance):
    spec = "multiplication"
    task = "multiplication"

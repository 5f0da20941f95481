"""The kit's checks, on a cheap mixture; the reward runs in its own process as in training."""

from reasonrl.testing import RewardConformance, TaskConformance

MIXTURE = {
    "datasets": {
        "chain_sum": {"weight": 2.0, "config": {"min_terms": 2, "max_terms": 4}},
        "leg_counting": {},
        "word_sorting": {"config": {"min_words": 3, "max_words": 5}},
    }
}


class TestTask(TaskConformance):
    spec = "reasoning_gym"
    config = MIXTURE


class TestReward(RewardConformance):
    spec = "reasoning_gym"
    task = "reasoning_gym"

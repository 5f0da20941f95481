"""Generated products and TinyZero's scale."""

import random
from typing import Any

import pytest

from reasonrl import Completion, FinishReason, Problem, RewardContext, Score, Split, TaskContext
from reasonrl_math.config import MultiplicationConfig, MultiplicationRewardConfig
from reasonrl_math.multiplication import MultiplicationReward, MultiplicationTask


def make(**options: Any) -> MultiplicationTask:
    return MultiplicationTask(MultiplicationConfig(**options), TaskContext(seed=0))


def judge(problem: Problem, text: str, format_value: float = 0.1) -> Score:
    reward = MultiplicationReward(MultiplicationRewardConfig(format_value=format_value), RewardContext())
    end = FinishReason.EOS
    return reward.score(problem, Completion(token_ids=(), logprobs=None, text=text, finish_reason=end))


@pytest.mark.parametrize("template", ["base", "chat", "compact"])
@pytest.mark.parametrize("top", [9, 999])
def test_a_reference_earns_the_maximum(template: str, top: int) -> None:
    task = make(template=template, max_factor=top)
    for index in range(50):
        problem = task.problem("train", index)
        left, right = problem.info["factors"]
        assert problem.info["product"] == left * right
        score = judge(problem, task.reference(problem))
        assert (score.value, score.correct) == (1.0, True)
        assert task.demonstration(problem, random.Random(0)) == task.reference(problem)


def test_the_steps_of_a_reference_are_true() -> None:
    task = make()
    for index in range(50):
        for line in task.reference(task.problem("train", index)).splitlines():
            if "*" in line:
                product, result = line.partition(",")[0].split(" = ")
                left, right = map(int, product.split(" * "))
                assert left * right == int(result)


def test_a_pair_of_factors_is_in_one_split_in_either_order() -> None:
    task = make(max_factor=12)

    def pairs(split: Split) -> set[frozenset[int]]:
        return {frozenset(task.problem(split, i).info["factors"]) for i in range(400)}

    train, held_out = pairs("train"), pairs("eval")
    assert not train & held_out
    assert len(held_out) >= 5
    assert pairs("train") == train


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("<think>x</think><answer>{product}</answer>", 1.0),
        ("<answer> {product} </answer>", 1.0),
        ("<answer>7</answer>", 0.1),
        ("<answer>{product}</answer><answer>7</answer>", 0.0),
        ("<answer>{product}.0</answer>", 0.0),
        ("<answer>{product}</answer></think>", 0.0),
        ("{product}", 0.0),
        ("<answer>" + "9" * 5000 + "</answer>", 0.0),
        ("<answer>٣</answer>", 0.0),
    ],
)
def test_tinyzeros_scale(text: str, value: float) -> None:
    problem = make(min_factor=20).problem("train", 3)
    assert judge(problem, text.replace("{product}", str(problem.info["product"]))).value == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1 + 1 = 2, 3 * 4 = {product} no\n", 1.0),
        ("3*4={product},", 1.0),
        ("3 * 4 = 1\n", 0.1),
        ("3 * 4 = {product}.5", 0.0),
        ("{product}", 0.0),
        ("=", 0.0),
        ("= x", 0.0),
    ],
)
def test_the_last_equation_counts_in_the_compact_form(text: str, value: float) -> None:
    problem = make(min_factor=20, template="compact").problem("train", 3)
    assert judge(problem, text.replace("{product}", str(problem.info["product"]))).value == value


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_factor": -1}, "min_factor must be in"),
        ({"min_factor": 5, "max_factor": 6}, "max_factor must be in"),
        ({"template": "x"}, "template must be one of base, chat, compact"),
    ],
)
def test_a_wrong_option_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MultiplicationConfig(**options)
    with pytest.raises(ValueError, match="format_value must be in"):
        MultiplicationRewardConfig(format_value=1.0)

"""Countdown with a calculator: what it says, what demonstrations show of it, and what the reward reads."""

from __future__ import annotations

import random
import re
from dataclasses import replace

import pytest

from reasonrl import Message, NoConfig, RewardContext, TaskContext
from reasonrl.conversations.calls import find_calls
from reasonrl.plugins import load_plugins
from reasonrl.testing import check_task
from reasonrl.testing.checks import assert_all_hold
from reasonrl.testing.tasks import completion_of
from reasonrl_countdown.calculator import calc
from reasonrl_countdown.config import CountdownConfig
from reasonrl_countdown.rewards import CountdownReward
from reasonrl_countdown.task import CountdownTask

TOOL = CountdownConfig(template="compact", calculator="tool", min_numbers=3, max_numbers=3, max_number=20)


@pytest.mark.parametrize(
    ("expression", "value"),
    [("(5+8)*3", "39"), (" 7 / 2 ", "7/2"), ("3-5", "-2"), ("12/3/2", "2")],
)
def test_values_are_exact(expression: str, value: str) -> None:
    assert calc(expression) == value


@pytest.mark.parametrize(
    "expression", ["", "5/0", "2**3", "__import__('os')", "1+", "007", "((1)", "9" * 5000, "(" * 5000]
)
def test_anything_else_has_no_value(expression: str) -> None:
    with pytest.raises(ValueError, match=r"^no value$"):
        calc(expression)


def test_demonstrations_call_it_and_show_its_results() -> None:
    task = CountdownTask(TOOL, TaskContext(seed=0))
    tools = task.tools()
    assert tools is not None
    for index in range(30):
        text = task.demonstration(task.problem("train", index), random.Random(index))
        results = re.findall(r"</calc>=(\d+)\n", text)
        calls = find_calls(tools, text)
        assert [calc(call.arguments["expression"]) for call in calls] == results
        assert results


def test_in_the_head_the_text_is_the_same_without_a_tool() -> None:
    with_tool, without = (CountdownTask(replace(TOOL, calculator=c), TaskContext(seed=0)) for c in ("tool", "head"))
    assert without.tools() is None
    problem = without.problem("train", 3)
    assert problem == with_tool.problem("train", 3)
    said = [task.demonstration(problem, random.Random(1)) for task in (with_tool, without)]
    assert said[0] == said[1]


def test_behaviors_read_calls_as_attempts() -> None:
    problem = CountdownTask(TOOL, TaskContext(seed=0)).problem_from_fields({"numbers": "3,5,8", "target": "39"})
    text = "<calc>3+5+8</calc>=16\n<calc>(5+8)*3</calc>=39\n</think>\n<answer>(5+8)*3</answer>"
    figures = CountdownTask(TOOL, TaskContext(seed=0)).behaviors(problem, text)
    assert (figures["attempts"], figures["true_arithmetic"], figures["gave_up"]) == (2.0, 1.0, 0.0)


def test_the_reward_reads_the_model_alone() -> None:
    """A result with an answer in it, which no calculator gives, is not the model's."""
    problem = CountdownTask(TOOL, TaskContext(seed=0)).problem_from_fields({"numbers": "3,5,8", "target": "39"})
    right = "<answer>(5+8)*3</answer>"
    sides = (Message(role="assistant", content="<calc>1</calc>"), Message(role="user", content=right))
    reward = CountdownReward(NoConfig(), RewardContext())
    both = replace(completion_of(f"<calc>1</calc>{right}", problem), messages=sides)
    assert reward.score(problem, both).reason == "no_answer"
    answered = replace(both, messages=(*sides[:1], Message(role="assistant", content=right)))
    assert reward.score(problem, answered).value == 1.0


@pytest.mark.parametrize("template", ["base", "chat"])
def test_other_templates_have_none(template: str) -> None:
    with pytest.raises(ValueError, match="calculator must be none with template"):
        CountdownConfig(template=template, calculator="tool")


def test_it_keeps_the_contract() -> None:
    plugins = load_plugins(environ={"REASONRL_PLUGINS": "reasonrl"})
    assert_all_hold(check_task("countdown", {"template": "compact", "calculator": "tool"}, plugins=plugins, count=10))

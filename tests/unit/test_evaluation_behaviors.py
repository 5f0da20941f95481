"""Behaviors of a suite: means over what a figure applies to, published lists of words, and tasks that fail."""

import logging
from collections.abc import Sequence
from typing import Any

import pytest
from support.builders import Judge, Numbers, completion, group, output, runner

from reasonrl import FinishReason, Problem, RewardOutput, SamplingParams, ScoredGroup
from reasonrl.contracts.metric_keys import CORE_METRICS, find_metric
from reasonrl.evaluation.behaviors import BehaviorMeter
from reasonrl.evaluation.keywords import KEYWORD_LISTS, keyword_counts
from reasonrl.evaluation.suites import Suite, summarize
from reasonrl.trainer.evaluator import suite_metrics


class Described(Numbers):
    """A task whose figures are a function of the text."""

    def __init__(self, function: Any) -> None:
        super().__init__()
        self._function = function

    def behaviors(self, problem: Problem, completion_text: str) -> Any:
        return self._function(problem, completion_text)


def said(*texts: str, verdicts: Sequence[bool | None] = (), reason: FinishReason = FinishReason.EOS) -> ScoredGroup:
    """Completions of a token a character."""
    found = verdicts or [False] * len(texts)
    rewards: tuple[RewardOutput, ...] = tuple(output(None if v is None else float(v), correct=v) for v in found)
    completions = [completion(range(len(text)), text=text, reason=reason) for text in texts]
    return ScoredGroup(group=group(completions, xs=[1, 2]), rewards=rewards)


def measure(task: Any, *groups: ScoredGroup) -> dict[str, float]:
    """The figures without the lists of words."""
    figures = BehaviorMeter().measure(task, "numbers", groups)
    return {name: value for name, value in figures.items() if not name.startswith("keyword_")}


def test_a_figure_is_a_mean_over_the_completions_that_it_applies_to() -> None:
    def figures(problem: Problem, text: str) -> dict[str, float]:
        own = {"calls": float("nan")} if text == "bb" else {"calls": len(text)}
        return {**own, "is_a": text.startswith("a")}

    out = measure(Described(figures), said("a", "bb"), said("ccc", "aaaa", verdicts=[True, None]))
    assert out == pytest.approx(
        {
            "calls": 8 / 3,
            "is_a": 1 / 2,
            "length_tokens_correct": 3.0,
            "length_tokens_wrong": 1.5,  # the unscored one is neither
            "failed_frac": 0.0,
        }
    )


def test_a_task_without_behaviors_has_the_general_figures() -> None:
    assert measure(Numbers(), said("a", "bb")) == {"length_tokens_wrong": 1.5}
    assert measure(Numbers()) == {}


def test_completions_that_the_backend_lost_are_left_out() -> None:
    lost = said("wait", reason=FinishReason.ERROR, verdicts=[None])
    assert BehaviorMeter().measure(Described(lambda p, t: {"n": 1}), "numbers", [lost]) == {}


@pytest.mark.parametrize(
    "answer",
    [
        lambda p, t: 1 / 0,
        lambda p, t: None,
        lambda p, t: {"n": "many"},
        lambda p, t: {"n": float("inf")},
        lambda p, t: {"a/b": 1.0},
        lambda p, t: {3: 1.0},
    ],
)
def test_a_failure_is_logged_once_and_counted(answer: Any, caplog: pytest.LogCaptureFixture) -> None:
    meter = BehaviorMeter()
    task = Described(lambda p, t: {"n": 1.0} if t == "fine" else answer(p, t))
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            figures = meter.measure(task, "numbers", [said("fine", "bad", "bad", "bad")])
            assert figures["n"] == 1.0
            assert figures["failed_frac"] == 0.75
    assert [r.getMessage() for r in caplog.records] == ["task 'numbers': behaviors failed; skipping the completion"]


def test_a_task_cannot_change_the_problem_or_the_cores_own_figures() -> None:
    def spoil(problem: Problem, text: str) -> dict[str, float]:
        problem.info["xs"].append(3)
        return {"length_tokens_wrong": -1.0, "size": len(problem.info["xs"])}

    groups = said("a", "bb")
    assert measure(Described(spoil), groups) == {"length_tokens_wrong": 1.5, "size": 3.0, "failed_frac": 0.0}
    assert groups.group.request.problem.info["xs"] == [1, 2]


@pytest.mark.parametrize(
    ("text", "hits"),
    [
        ("", {}),
        ("Wait, but the BUTTON waits.", {"r1_zero": 2, "open_reasoner_zero": 1, "simplerl_zoo": 2}),
        # "evaluate" is a word of its own in "re-evaluate"; "check again" counts where "recheck" does too.
        (
            "I recheck again, re-evaluate and try again.",
            {"r1_zero": 1, "oat_zero": 4, "understand_r1_zero": 3, "open_reasoner_zero": 1, "simplerl_zoo": 2},
        ),
        ("However, double-check", {"r1_zero": 2, "understand_r1_zero": 1, "open_reasoner_zero": 1, "simplerl_zoo": 1}),
        ("recheck\nrecheck. Alternatively, retry", {"r1_zero": 1, "oat_zero": 2, "understand_r1_zero": 2,
                                                    "open_reasoner_zero": 3, "simplerl_zoo": 4}),
    ],
)  # fmt: skip
def test_published_lists_by_hand(text: str, hits: dict[str, int]) -> None:
    assert keyword_counts(text) == {**dict.fromkeys(KEYWORD_LISTS, 0), **hits}


def test_words_are_a_rate_and_a_count_per_completion() -> None:
    figures = BehaviorMeter().measure(Numbers(), "numbers", [said("retry, retry", "so", "Retry", "no")])
    assert figures["keyword_simplerl_zoo"] == 0.5
    assert figures["keyword_simplerl_zoo_hits"] == 0.75


def test_a_suite_reports_them_everywhere_under_declared_keys() -> None:
    suite = Suite(
        name="held_out",
        task=Described(lambda p, t: {"n": 2.0}),
        task_name="numbers",
        rewards=runner(Judge(lambda p, c: 1.0)),
        indices=range(2),
        samples=1,
        sampling=SamplingParams(),
        seed=0,
    )
    result = summarize(suite, [said("a", "b", verdicts=[True, False])])
    assert result.to_json()["behavior"] == dict(result.behavior)
    metrics = suite_metrics([result])
    assert metrics["behavior/held_out/n"] == 2.0
    general = [key for key in metrics if key != "behavior/held_out/n"]
    assert [key for key in general if find_metric(key, CORE_METRICS) is None] == []
    keys = {d.key.removeprefix("behavior/<suite>/") for d in CORE_METRICS if d.key.startswith("behavior/")}
    assert keys | {"n"} == set(result.behavior)

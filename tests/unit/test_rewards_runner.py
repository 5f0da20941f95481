"""Whatever a reward does, a completion ends scored with plain numbers or unscored with a reason."""

import json
import logging
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from support.builders import Direct, GroupJudge, Judge, Slot, completion, group, runner

from reasonrl import Completion, FinishReason, Problem, RewardContext, RewardOutput, RewardSpec, Score
from reasonrl.errors import PluginContractError
from reasonrl.observability.transcripts import transcript_records
from reasonrl.rewards.runner import RewardRunner
from reasonrl.rundir.jsonl import to_line

ONE = group([completion()])


def judged(value: Any) -> RewardOutput:
    """What becomes of a reward that returns ``value``."""
    return runner(Judge(lambda problem, c: value)).score(ONE).rewards[0]


@pytest.mark.parametrize(
    ("value", "total"),
    [
        (0.25, 0.25),
        (1, 1.0),
        (True, 1.0),
        (Fraction(1, 2), 0.5),
        (np.float32(0.5), 0.5),
        (np.float64(0.5), 0.5),
        (np.int64(1), 1.0),
        (Score(value=0.0), 0.0),
        (Score(value=Fraction(1, 4)), 0.25),
        (Score(value=np.float32(1.0), token_values=np.array([0.5, 0.0], np.float32)), 1.0),  # type: ignore[arg-type]
        (Score(value=1.0, metrics={"depth": np.float32(2.0)}), 1.0),
    ],
)
def test_numbers_of_any_kind_become_plain_floats(value: Any, total: float) -> None:
    result = judged(value)
    assert result.total == total
    assert type(result.total) is float
    assert {type(v) for v in (*result.components.values(), *result.token_values, *result.metrics.values())} == {float}
    scored = runner(Judge(lambda problem, c: value)).score(ONE)
    assert json.loads(to_line(next(iter(transcript_records([scored])))))["reward"] == total


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "unscored"),
        (Score(value=None, reason="no tests ran"), "no tests ran"),
        (float("nan"), "finite"),
        (float("inf"), "finite"),
        (10**400, "finite"),
        ("1.0", "returned str"),
        ([1.0], "returned list"),
        (1j, "returned complex"),
        (1.5, "outside its declared range [0.0, 1.0]"),
        (-0.01, "outside its declared range"),
        (Score(value="high"), "finite number"),  # type: ignore[arg-type]
        (Score(value=float("nan")), "finite number"),
        (Score(value=1.0, correct="yes"), "correct of type str, expected bool or None"),  # type: ignore[arg-type]
        (Score(value=1.0, correct=1), "correct of type int"),  # type: ignore[arg-type]
        (Score(value=1.0, answer=["a"]), "answer of type list"),  # type: ignore[arg-type]
        (Score(value=1.0, answer=5), "answer of type int"),  # type: ignore[arg-type]
        (Score(value=1.0, reason=None), "reason of type NoneType"),  # type: ignore[arg-type]
        (Score(value=1.0, metrics=[("a", 1)]), "metrics of type list"),  # type: ignore[arg-type]
        (Score(value=1.0, metrics={"a": "b"}), "metric 'a' of b"),  # type: ignore[dict-item]
        (Score(value=1.0, metrics={"a": float("nan")}), "metric 'a' of nan"),
        (Score(value=1.0, token_values=(0.1,)), "1 token values for 2 tokens"),
        (Score(value=1.0, token_values=(0.1, 0.2, 0.3)), "3 token values for 2 tokens"),
        (Score(value=1.0, token_values=(0.1, float("nan"))), "token value of nan"),
        (Score(value=1.0, token_values=(0.1, "b")), "token value of b"),  # type: ignore[arg-type]
        (Score(value=1.0, token_values=0.1), "token_values of type float"),  # type: ignore[arg-type]
    ],
)
def test_nonsense_is_unscored_and_says_why(value: Any, reason: str) -> None:
    result = judged(value)
    assert result.total is None
    assert result.components == {"a": None}
    assert result.correct is None
    assert reason in result.reasons["a"]
    assert result.token_values == ()


def raising(error: BaseException) -> Judge:
    def fail(problem: Problem, completion: Completion) -> float:
        raise error

    return Judge(fail)


def test_the_first_traceback_is_logged_once_even_after_other_nonsense(
    caplog: pytest.LogCaptureFixture,
) -> None:
    values = iter([7.0, ValueError("first"), ValueError("second"), 8.0])

    def answer(problem: Problem, completion: Completion) -> float:
        value = next(values)
        if isinstance(value, ValueError):
            raise value
        return value

    judge = runner(Judge(answer))
    with caplog.at_level(logging.WARNING):
        results = [judge.score(ONE).rewards[0] for _ in range(4)]
    assert [r.total for r in results] == [None] * 4
    assert [r.reasons["a"] for r in results[1:3]] == ["raised ValueError"] * 2
    assert len(caplog.records) == 2
    assert [bool(record.exc_text) for record in caplog.records] == [False, True]
    assert "first" in caplog.text
    assert "second" not in caplog.text


def test_every_reward_gets_its_own_first_traceback(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        runner(raising(ValueError("one")), raising(KeyError("two"))).score(ONE)
    assert "one" in caplog.text
    assert "two" in caplog.text


def test_ctrl_c_passes_through() -> None:
    with pytest.raises(KeyboardInterrupt):
        runner(raising(KeyboardInterrupt())).score(ONE)


def test_a_reward_that_exits_does_not_end_the_run_as_if_all_were_well() -> None:
    result = runner(raising(SystemExit(0))).score(ONE).rewards[0]
    assert (result.total, result.reasons) == (None, {"a": "raised SystemExit"})


def late(error: BaseException) -> Iterator[float]:
    yield 0.5
    raise error


@pytest.mark.parametrize("error", [KeyError("x"), ValueError("x"), SystemExit(0), RuntimeError("x")])
def test_lazy_values_that_raise_leave_the_completion_unscored(
    error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    def judge(problem: Problem, c: Completion) -> Score:
        return Score(value=1.0, token_values=late(error))  # type: ignore[arg-type]

    judges = runner(Judge(judge))
    with caplog.at_level(logging.WARNING):
        results = [judges.score(ONE).rewards[0] for _ in range(2)]
    assert [r.total for r in results] == [None, None]
    assert results[0].reasons == {"a": f"raised {type(error).__name__}"}
    assert [bool(record.exc_text) for record in caplog.records] == [True]


@pytest.mark.parametrize("reason", [FinishReason.ABORT, FinishReason.ERROR])
def test_an_aborted_completion_is_unscored_without_being_asked(reason: FinishReason) -> None:
    judge = Judge(lambda problem, c: 1.0)
    result = runner(judge).score(group([completion(reason=reason), completion()]))
    assert [r.total for r in result.rewards] == [None, 1.0]
    assert result.rewards[0].reasons == {"a": reason.value}
    assert judge.asked == 1
    of_group = runner(GroupJudge(lambda g: [1.0, 0.5])).score(group([completion(reason=reason), completion()]))
    assert [r.total for r in of_group.rewards] == [None, 0.5]


@pytest.mark.parametrize("reason", [FinishReason.LENGTH, FinishReason.STOP_STRING, FinishReason.EOS])
def test_other_endings_are_judged(reason: FinishReason) -> None:
    assert runner(Judge(lambda problem, c: 1.0)).score(group([completion(reason=reason)])).rewards[0].total == 1


@pytest.mark.parametrize(
    "returned", [[1.0], [1.0, 0.0, 1.0], [], None, 1.0], ids=["short", "long", "empty", "none", "number"]
)
def test_a_group_reward_of_the_wrong_shape_leaves_the_whole_group_unscored(returned: Any) -> None:
    result = runner(GroupJudge(lambda g: returned)).score(group([completion(), completion()]))
    assert [r.total for r in result.rewards] == [None, None]
    assert all(r.reasons["a"] for r in result.rewards)


def test_a_group_reward_is_checked_completion_by_completion() -> None:
    result = runner(GroupJudge(lambda g: (v for v in [0.5, None, float("nan"), "x"]))).score(group([completion()] * 4))
    assert [r.total for r in result.rewards] == [0.5, None, None, None]


def test_a_reward_cannot_change_what_it_judges() -> None:
    def assign(problem: Problem, completion: Completion) -> float:
        completion.text = "better"  # type: ignore[misc]
        return 1.0

    assert runner(Judge(assign)).score(ONE).rewards[0].reasons == {"a": "raised FrozenInstanceError"}

    def empty(problem: Problem, completion: Completion) -> float:
        value = float(len(problem.info["numbers"]) == 2)
        problem.info["numbers"].clear()
        return value

    def empty_group(whole: Any) -> list[float]:
        return [empty(whole.request.problem, c) for c in whole.completions[:1]] + [1.0]

    asked = group([completion(), completion()], numbers=[3, 5])
    for reward in (Judge(empty), GroupJudge(empty_group)):
        for _ in range(2):
            assert [r.total for r in runner(reward).score(asked).rewards] == [1.0, 1.0]
    assert asked.request.problem.info == {"numbers": [3, 5]}


def test_weights_multiply_totals_and_components_stay_unweighted() -> None:
    both = runner(Judge(lambda p, c: 0.5), Judge(lambda p, c: 1.0), weights=(2.0, -0.25)).score(ONE).rewards[0]
    assert both.total == pytest.approx(0.75)
    assert both.components == {"a": 0.5, "b": 1.0}


def test_token_values_are_weighted_and_added() -> None:
    one = Judge(lambda p, c: Score(value=0.0, token_values=(1.0, 2.0)))
    two = Judge(lambda p, c: Score(value=0.0, token_values=(0.5, -1.0)))
    plain = Judge(lambda p, c: 0.0)
    assert runner(one, plain, two, weights=(2.0, 1.0, 1.0)).score(ONE).rewards[0].token_values == (2.5, 3.0)
    assert runner(plain).score(ONE).rewards[0].token_values == ()


def test_one_reward_that_cannot_score_makes_the_total_unknown() -> None:
    right = Judge(lambda p, c: Score(value=1.0, correct=True, answer="a", token_values=(1.0, 1.0)))
    result = runner(right, Judge(lambda p, c: None)).score(ONE).rewards[0]
    assert result.total is None
    assert result.correct is None
    assert result.token_values == ()
    assert result.components == {"a": 1.0, "b": None}
    assert result.reasons == {"b": "unscored"}


def test_correct_is_the_top_of_the_range_unless_said() -> None:
    assert runner(Judge(lambda p, c: 2.0), top=2.0).score(ONE).rewards[0].correct is True
    assert runner(Judge(lambda p, c: 1.9), top=2.0).score(ONE).rewards[0].correct is False
    assert judged(Score(value=1.0, correct=False)).correct is False
    assert judged(Score(value=0.0, correct=True)).correct is True


def test_the_first_reward_that_states_correct_and_answer_decides() -> None:
    silent = Judge(lambda p, c: 1.0)
    wrong = Judge(lambda p, c: Score(value=0.0, correct=False, answer="first", metrics={"n": 1.0}, reason="no"))
    right = Judge(lambda p, c: Score(value=1.0, correct=True, answer="second", metrics={"n": 2.0}))
    result = runner(silent, wrong, right).score(ONE).rewards[0]
    assert result.correct is False
    assert result.answer == "first"
    assert result.metrics == {"b/n": 1.0, "c/n": 2.0}
    assert result.reasons == {"b": "no"}
    low, high = Judge(lambda p, c: 0.2), silent
    assert runner(low, high).score(ONE).rewards[0].correct is False
    assert runner(high, low).score(ONE).rewards[0].correct is True


def test_rewards_and_completions_stay_in_order() -> None:
    by_length = Judge(lambda p, c: len(c.token_ids) / 10)
    result = runner(by_length).score(group([completion(range(n)) for n in (3, 1, 2)]))
    assert [r.total for r in result.rewards] == [0.3, 0.1, 0.2]
    assert runner(by_length, by_length).names == ("a", "b")


def test_a_factory_that_makes_no_reward_is_refused() -> None:
    with pytest.raises(PluginContractError, match=r"'a': its factory returned int.*neither score"):
        runner(5)


def test_what_cannot_be_sent_to_a_worker_is_refused_with_the_cure() -> None:
    spec = RewardSpec(name="a", summary="a", factory=lambda c, x: Judge(lambda p, c: 1.0), isolation="process")
    with pytest.raises(PluginContractError, match=r"'a' in its own process.*pkg\.mod:Class"):
        RewardRunner.build({"a": Slot(spec)}, Direct(), RewardContext())

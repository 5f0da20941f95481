"""Order of problems, and what a task may get wrong."""

import re
from typing import Any

import numpy as np
import pytest
from support.builders import Numbers

from reasonrl import DataSummary, Problem
from reasonrl.data.stream import ProblemStream, fetch_problem
from reasonrl.data.summary import fetch_summaries
from reasonrl.errors import PluginContractError, RecipeError


def indices(stream: ProblemStream, positions: range) -> list[int]:
    return [stream.problem(position).info["n"] for position in positions]


def test_an_unbounded_split_is_taken_in_order() -> None:
    assert indices(ProblemStream(Numbers(), "numbers", "train", seed=3), range(5, 9)) == [5, 6, 7, 8]


def test_every_epoch_covers_a_finite_split_in_another_order() -> None:
    stream = ProblemStream(Numbers(10), "numbers", "train", seed=0)
    epochs = [indices(stream, range(e * 10, e * 10 + 10)) for e in range(3)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3
    assert list(range(10)) not in epochs


def test_a_position_says_it_all() -> None:
    """Jumping about, as resuming and ranks do, gives what reading in order gives."""
    in_order = indices(ProblemStream(Numbers(7), "numbers", "train", seed=1), range(21))
    jumping = ProblemStream(Numbers(7), "numbers", "train", seed=1)
    positions = [20, 0, 13, 7, 6, 14, 1]
    assert [jumping.problem(p).info["n"] for p in positions] == [in_order[p] for p in positions]


def test_seed_and_split_change_the_order() -> None:
    streams = [
        indices(ProblemStream(Numbers(20), "numbers", split, seed=seed), range(20))
        for split, seed in (("train", 0), ("train", 1), ("eval", 0))
    ]
    assert len({tuple(s) for s in streams}) == 3


@pytest.mark.parametrize("size", [0, -1])
def test_an_empty_split_is_the_users_error(size: int) -> None:
    message = rf"^task 'numbers' has no problems in its eval split: size\('eval'\) is {size}; add rows, .* or remove"
    with pytest.raises(RecipeError, match=message):
        ProblemStream(Numbers(size), "numbers", "eval", seed=0)


def test_an_empty_split_says_what_was_read() -> None:
    class Read(Numbers):
        def data_summary(self) -> list[DataSummary]:
            dropped = {"repeated": 2, "without a solution": 0}
            tenth = "a tenth is held out; task.eval_path names others"
            return [DataSummary(source="n.csv", kept={"train": 1005, "eval": 0}, dropped=dropped, held_out=tenth)]

    with pytest.raises(RecipeError) as caught:
        ProblemStream(Read(0), "read", "eval", seed=0)
    assert str(caught.value) == (
        "task 'read' has no problems in its eval split: n.csv: 1,007 rows read, 1,005 kept (1,005 train, 0 eval), "
        "2 dropped (2 repeated); a tenth is held out; task.eval_path names others; add rows, set another task for "
        "the suite (evaluation.suites.NAME.task), or remove the suite"
    )


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (RuntimeError("no disk"), "task 'bad': data_summary() raised RuntimeError: no disk"),
        ("7 rows", "task 'bad': data_summary() returned '7 rows', expected DataSummary objects"),
        (None, "task 'bad': data_summary() returned None, expected DataSummary objects"),
    ],
)
def test_a_mistake_in_a_summary_is_named(result: Any, message: str) -> None:
    class Bad(Numbers):
        def data_summary(self) -> Any:
            if isinstance(result, Exception):
                raise result
            return result

    with pytest.raises(PluginContractError, match=re.escape(message)):
        fetch_summaries(Bad(), "bad")


class Failing(Numbers):
    def __init__(self, result: Any) -> None:
        super().__init__()
        self.result = result

    def problem(self, split: Any, index: int) -> Any:
        if isinstance(self.result, BaseException):
            raise self.result
        return self.result


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (KeyError("nums"), r"task 'bad': problem\('train', 4\) raised KeyError"),
        (SystemExit(0), r"problem\('train', 4\) raised SystemExit: 0"),
        ("2 + 2", "returned str, expected a Problem"),
        (Problem(id="p", prompt="x", info={"n": np.int64(3)}), "JSON values only"),
        (Problem(id="p", prompt="x", info={"n": {1, 2}}), "JSON values only"),
    ],
)
def test_a_tasks_mistake_is_named(result: Any, message: str) -> None:
    with pytest.raises(PluginContractError, match=message):
        fetch_problem(Failing(result), "bad", "train", 4)


def test_a_tasks_own_words_pass() -> None:
    with pytest.raises(RecipeError, match=r"^give another range$"):
        fetch_problem(Failing(RecipeError("give another range")), "bad", "train", 0)


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (RuntimeError("no disk"), "size('eval') raised RuntimeError: no disk"),
        ("7", "returned str, expected an int"),
    ],
)
def test_a_mistake_about_the_size_is_named(result: Any, message: str) -> None:
    class Sized:
        def size(self, split: str) -> Any:
            if isinstance(result, Exception):
                raise result
            return result

    with pytest.raises(PluginContractError, match=re.escape(message)):
        ProblemStream(Sized(), "sized", "eval", seed=0)  # type: ignore[arg-type]

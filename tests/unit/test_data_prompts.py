"""Overlong prompts: counted over whole splits, or drawn anew; and what the messages advise."""

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reasonrl import Problem
from reasonrl.data.prompts import (
    MAX_REDRAWS,
    PromptLimit,
    PromptSource,
    check_lines,
    fitting,
    judge,
    measure,
)
from reasonrl.data.render import PromptRenderer
from reasonrl.data.stream import REDRAW_STRIDE, ProblemStream
from reasonrl.errors import RecipeError
from reasonrl.testing.models import byte_tokenizer

RENDERER = PromptRenderer(byte_tokenizer())
LIMIT = PromptLimit(max_prompt_tokens=10, completion_tokens=5)
DROP = PromptLimit(max_prompt_tokens=10, completion_tokens=5, overlong="drop")


class Sized:
    """A task whose problem at index i has a prompt of ``lengths(i)`` tokens."""

    def __init__(self, lengths: Any, size: int | None = None) -> None:
        self.lengths, self.count = lengths, size
        self.asked: list[int] = []

    def size(self, split: str) -> int | None:
        return self.count

    def problem(self, split: str, index: int) -> Problem:
        self.asked.append(index)
        return Problem(id=f"{split}/{index}", prompt="x" * self.lengths(index), info={"n": index})


def source(task: Sized, limit: PromptLimit = DROP, seed: int = 0) -> PromptSource:
    return PromptSource(ProblemStream(task, "sized", "train", seed=seed), RENDERER, limit)


def fetch(task: Sized) -> Any:
    return lambda index: task.problem("eval", index)


@given(
    st.integers(1, 60),
    st.integers(1, 60),
    st.integers(2, 100),
    st.integers(1, 100),
)
def test_what_the_advice_says_fits(limit: int, completion: int, context: int, longest: int) -> None:
    """Set the keys that it names, and a prompt of that length is no longer over the limit."""
    if completion >= context:
        with pytest.raises(RecipeError, match="leaves no room for a prompt"):
            PromptLimit(max_prompt_tokens=limit, completion_tokens=completion, context=context)
        return
    now = PromptLimit(max_prompt_tokens=limit, completion_tokens=completion, context=context)
    assert now.tokens == min(limit, context - completion)
    if longest <= now.tokens:
        return now.check(Problem(id="p", prompt="x"), longest)
    with pytest.raises(RecipeError, match=f"has {longest} tokens, over") as caught:
        now.check(Problem(id="p", prompt="x"), longest)
    advice = now.advice(longest)
    assert advice in str(caught.value)
    if longest >= context:
        assert f"does not fit the model's context of {context} tokens" in advice
        return
    keys = dict(part.split("=") for part in advice.removeprefix("set ").split(" and "))
    after = PromptLimit(
        max_prompt_tokens=int(keys.get("sampling.max_prompt_tokens", limit)),
        completion_tokens=int(keys.get("max_completion_tokens", completion)),
        context=context,
    )
    assert longest <= after.tokens


def test_a_whole_split_is_measured_in_order() -> None:
    task = Sized(lambda i: 1 + i % 7, 1500)
    assert list(measure(fetch(task), range(1500), RENDERER)) == [(i, 1 + i % 7) for i in range(1500)]


def test_the_worst_prompt_is_named_with_the_limit_that_would_fit_it() -> None:
    task = Sized(lambda i: {3: 12, 40: 30}.get(i, 5), 50)
    measured = list(measure(fetch(task), range(50), RENDERER))
    with pytest.raises(RecipeError) as caught:
        judge("train", fetch(task), measured, LIMIT)
    assert str(caught.value) == (
        "train: 2 of 50 prompts are over sampling.max_prompt_tokens=10; the longest, of problem 'eval/40', has 30 "
        "tokens: set sampling.max_prompt_tokens=30; or skip such prompts with "
        "sampling.overlong_prompts=drop"
    )
    check = judge("train", fetch(task), measured, DROP)
    assert check.line() == "train: 50 checked, 2 over 10 tokens and dropped, 48 left; longest 5"


def test_a_split_of_overlong_prompts_alone_is_refused_under_either_policy() -> None:
    task = Sized(lambda i: 11, 4)
    for limit in (LIMIT, DROP):
        with pytest.raises(RecipeError, match="4 of 4 prompts are over"):
            judge("train", fetch(task), list(measure(fetch(task), range(4), RENDERER)), limit)


def test_splits_without_overlong_prompts_share_a_line() -> None:
    checks = [judge(name, None, [(0, 3), (1, 3 + i)], DROP) for i, name in enumerate("abc")]  # type: ignore[arg-type]
    checks.append(judge("d", None, [(0, 3), (1, 11)], DROP))  # type: ignore[arg-type]
    assert sorted(check_lines(checks)) == [
        "a, b, c: 6 checked, 0 over 10 tokens; longest 5",
        "d: 2 checked, 1 over 10 tokens and dropped, 1 left; longest 3",
    ]


@pytest.mark.parametrize(
    ("long", "size", "wanted", "kept"),
    [
        ({1}, 9, 4, [0, 2, 3, 4]),
        (set(), 9, 4, [0, 1, 2, 3]),
        ({0, 1, 2, 5}, 9, 4, [3, 4, 6, 7]),
        ({0, 1, 2, 5}, 7, 4, [3, 4, 6]),
    ],
)
def test_a_suite_takes_the_next_problem_for_one_that_is_overlong(
    long: set[int], size: int, wanted: int, kept: list[int]
) -> None:
    task = Sized(lambda i: 11 if i in long else 5, size)
    measured = fitting(fetch(task), range(size), wanted, RENDERER, DROP)
    assert [i for i, tokens in measured if tokens <= 10] == kept
    assert max(task.asked) <= max(kept[-1], size - 1)
    assert task.asked == [i for i, _ in measured]


@given(st.sets(st.integers(0, 19), max_size=19), st.integers(0, 5))
def test_dropped_problems_never_come_and_the_others_keep_their_order(long: set[int], seed: int) -> None:
    task = Sized(lambda i: 5, 20)
    whole = ProblemStream(task, "sized", "train", seed=seed)
    without = ProblemStream(task, "sized", "train", seed=seed)
    without.leave_out(long)
    kept = 20 - len(long)
    for epoch in range(3):
        every = [whole.problem(epoch * 20 + i).info["n"] for i in range(20)]
        some = [without.problem(epoch * kept + i).info["n"] for i in range(kept)]
        assert some == [n for n in every if n not in long]


def test_an_endless_task_is_drawn_anew_the_same_way_everywhere() -> None:
    def lengths(index: int) -> int:
        return random.Random(index).choice([5, 11, 12])

    drawn = {p: source(Sized(lengths)).draw(p) for p in range(200)}
    again = source(Sized(lengths))
    for position in random.Random(1).sample(range(200), 200):
        one = again.draw(position)
        assert one == drawn[position]
        assert one.problem.info["n"] == position + one.redraws * REDRAW_STRIDE
        assert len(one.prompt.ids) == 5
    assert 100 < sum(one.redraws for one in drawn.values()) < 1000
    assert source(Sized(lambda i: 5)).draw(7).redraws == 0


def test_where_an_overlong_prompt_stops_the_run_it_is_named() -> None:
    with pytest.raises(RecipeError, match=r"'train/3' has 11 tokens, over sampling.max_prompt_tokens=10"):
        source(Sized(lambda i: 11), LIMIT).draw(3)


def test_a_task_of_overlong_prompts_alone_is_given_up() -> None:
    task = Sized(lambda i: 11)
    with pytest.raises(RecipeError, match=rf"task 'sized': {MAX_REDRAWS} consecutive prompts are over"):
        source(task).draw(3)
    assert len(task.asked) == MAX_REDRAWS

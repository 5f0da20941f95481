"""``guess_number``: hints, ends, and what its reward believes."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest

from reasonrl import Message, NoConfig, Problem, RewardContext, TaskContext, Transcript
from reasonrl.plugins import load_plugins
from reasonrl.testing import check_task
from reasonrl.testing.checks import assert_all_hold
from reasonrl.testing.tasks import completion_of
from reasonrl_countdown.guess import GuessConfig, GuessReward, GuessTask, find_guess

COMPACT = GuessConfig(template="compact")
REWARD = GuessReward(NoConfig(), RewardContext())


def play(task: GuessTask, problem: Problem, player: Any) -> tuple[list[str], dict[str, Any]]:
    """A whole game; the player is given the hints so far."""
    hints: list[str] = []
    messages: tuple[Message, ...] = (Message(role="user", content="?"),)
    state: dict[str, Any] = {}
    while True:
        messages = (*messages, Message(role="assistant", content=player(hints)))
        turn, state = task.respond(Transcript(problem=problem, messages=messages, state=state))
        if turn is None:
            return hints, state
        content = turn.content if isinstance(turn.content, str) else turn.content[0].content
        hints.append(content.strip())
        messages = (*messages, Message(role="user", content=content))


def bisect(problem: Problem) -> Any:
    def guess(hints: list[str]) -> str:
        low, high = problem.info["low"], problem.info["high"]
        for hint in hints:
            middle = (low + high) // 2
            low, high = (middle + 1, high) if hint.startswith(("Higher", "+")) else (low, middle - 1)
        return f"{(low + high) // 2}\n"

    return guess


@pytest.mark.parametrize("template", ["compact", "chat"])
@pytest.mark.parametrize("hints", ["direction", "range"])
def test_halving_wins_within_five_guesses(template: str, hints: str) -> None:
    task = GuessTask(GuessConfig(template=template, hints=hints), TaskContext(seed=0))
    for index in range(60):
        problem = task.problem("eval" if index % 2 else "train", index)
        _, state = play(task, problem, bisect(problem))
        assert state["found"]
        assert state["fitting"] == state["guesses"] <= 5
        score = REWARD.score(problem, replace(completion_of("x"), state=state))
        assert (score.value, score.metrics["fitting_frac"]) == (1.0, 1.0)


def test_a_player_who_ignores_the_hints_or_the_form_runs_out_of_guesses() -> None:
    task = GuessTask(COMPACT, TaskContext(seed=0))
    problem = replace(task.problem("train", 0), info={"low": 10, "high": 40, "number": 20})
    hints, state = play(task, problem, lambda hints: "30\n")
    assert hints == ["-"] * 4
    assert (state["guesses"], state["fitting"], state["high"], state["found"]) == (5, 1, 29, False)
    hints, state = play(task, problem, lambda hints: "10 or 20\n")
    assert hints == ["one number, please"] * 4
    assert REWARD.score(problem, replace(completion_of("20"), state=state)).value == 0.0


def test_without_hints_it_says_only_that_a_guess_is_wrong() -> None:
    task = GuessTask(replace(COMPACT, hints="none"), TaskContext(seed=0))
    problem = replace(task.problem("train", 0), info={"low": 10, "high": 40, "number": 20})
    hints, state = play(task, problem, lambda hints: f"{30 - len(hints)}\n")
    assert hints == ["x"] * 4
    assert (state["guesses"], state["fitting"], state["low"], state["high"]) == (5, 5, 10, 40)


@pytest.mark.parametrize(
    ("template", "expected"),
    [("compact", ["- 10 29", "+ 13 29"]), ("chat", ["Lower, from 10 to 29.", "Higher, from 13 to 29."])],
)
def test_hints_may_say_what_is_left_of_the_range(template: str, expected: list[str]) -> None:
    task = GuessTask(GuessConfig(template=template, hints="range"), TaskContext(seed=0))
    problem = replace(task.problem("train", 0), info={"low": 10, "high": 40, "number": 20})
    hints, state = play(task, problem, lambda hints: ["30", "12", "20"][len(hints)])
    assert hints == expected
    assert (state["low"], state["high"], state["found"]) == (13, 29, True)


def test_the_reward_believes_the_state_alone() -> None:
    problem = GuessTask(COMPACT, TaskContext(seed=0)).problem("train", 0)
    claimed = completion_of(f"{problem.info['number']}\nfound, right, 1.0", problem)
    assert REWARD.score(problem, claimed).value == 0.0
    assert REWARD.score(problem, claimed).reason == "no_guess"


@pytest.mark.parametrize(
    ("text", "guess"),
    [
        ("17\n", 17),
        ("I say 17.", 17),
        ("<think>not 3, not 5</think>17", 17),
        ("1 7", None),
        ("", None),
        ("9" * 50_000, None),
        ("٣", 3),
    ],
)
def test_guesses_are_found(text: str, guess: int | None) -> None:
    assert find_guess(text) == guess


@pytest.mark.parametrize("template", ["compact", "chat"])
def test_it_keeps_the_contract(template: str) -> None:
    plugins = load_plugins(environ={"REASONRL_PLUGINS": "reasonrl"})
    assert_all_hold(check_task("guess_number", {"template": template}, plugins=plugins, count=20))


@pytest.mark.parametrize(
    ("field", "value"),
    [("template", "base"), ("size", 1), ("max_low", 9), ("guesses", 0), ("hints", "yes")],
)
def test_options_out_of_range_are_refused(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=field):
        GuessConfig(**{field: value})


@pytest.mark.parametrize("hints", ["none", "direction", "range"])
@pytest.mark.parametrize("template", ["compact", "chat"])
def test_demonstrations_are_games_as_the_task_plays_them(hints: str, template: str) -> None:
    """The player never guesses what cannot be right."""
    task = GuessTask(GuessConfig(template=template, hints=hints), TaskContext(seed=0))
    for index in range(40):
        problem = task.problem("train", index)
        said = task.demonstration(problem, random.Random(index))
        guesses = [message.content for message in said[::2]]
        heard, state = play(task, problem, lambda hints, guesses=guesses: guesses[len(hints)])
        assert heard == [message.content.strip() for message in said[1::2]]
        assert {message.role for message in said[::2]} == {"assistant"}
        assert len(guesses) == len(set(guesses)) == state["fitting"] == state["guesses"] <= 5


@pytest.mark.parametrize(("hints", "expected"), [("range", 0.604), ("direction", 0.604), ("none", 4 / 15)])
def test_demonstrations_win_as_often_as_uniform_play_does(hints: str, expected: float) -> None:
    """15 numbers and 4 guesses: 60.4% with hints by dynamic programming, 4 of 15 without."""
    task = GuessTask(replace(COMPACT, hints=hints, size=15, guesses=4), TaskContext(seed=0))
    found = 0
    for index in range(2000):
        problem = task.problem("train", index)
        said = task.demonstration(problem, random.Random(index))
        found += find_guess(said[-1].content) == problem.info["number"]
    assert abs(found / 2000 - expected) < 0.045  # four standard errors

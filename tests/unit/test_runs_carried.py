"""Groups of a checkpoint are read back as they were written, whatever a model or a plugin put into them."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.builders import completion, group, output, scored

from reasonrl import Completion, FinishReason, Message, Problem, RewardOutput, RolloutGroup, ScoredGroup
from reasonrl.errors import CheckpointError
from reasonrl.rundir.layout import CARRIED, TRAINER_STATE
from reasonrl.runs.carried import read_groups, write_groups
from reasonrl.runs.state import TrainState, read_state

TEXT = st.text(st.characters(exclude_categories=())) | st.just("half \udc80 of a character,\u2028 and \x85\n")
NUMBER = st.floats(allow_nan=False)
VALUES = st.recursive(st.none() | st.booleans() | st.integers() | NUMBER | TEXT, lambda v: st.lists(v, max_size=3))
INFO = st.dictionaries(TEXT, VALUES, max_size=3)


@st.composite
def completions(draw: st.DrawFn) -> Completion:
    ids = draw(st.lists(st.integers(0, 2**31), max_size=5))
    logprobs = draw(st.none() | st.lists(NUMBER, min_size=len(ids), max_size=len(ids)))
    return replace(
        completion(ids, text=draw(TEXT), reason=draw(st.sampled_from(FinishReason)), logprobs=logprobs),
        policy_version=draw(st.integers(0, 10**6)),
        sampled_mask=draw(st.none() | st.just((True,) * len(ids))),
        prompt_text=draw(TEXT),
    )


@st.composite
def groups(draw: st.DrawFn) -> ScoredGroup:
    members = draw(st.lists(completions(), min_size=1, max_size=3))
    made = group(members)
    prompt: Any = draw(TEXT | st.tuples(st.builds(Message, role=st.sampled_from(["system", "user"]), content=TEXT)))
    problem = Problem(id=draw(TEXT), prompt=prompt, assistant_prefix=draw(TEXT), info=draw(INFO))
    request = replace(made.request, problem=problem, seed=draw(st.integers(0, 2**64 - 1)), prompt_text=draw(TEXT))
    rewards = tuple(
        RewardOutput(
            total=draw(st.none() | NUMBER),
            components=draw(st.dictionaries(TEXT, st.none() | NUMBER, max_size=2)),
            correct=draw(st.none() | st.booleans()),
            answer=draw(st.none() | TEXT),
            token_values=tuple(draw(st.lists(NUMBER, max_size=3))),
            metrics=draw(st.dictionaries(TEXT, NUMBER, max_size=2)),
            reasons=draw(st.dictionaries(TEXT, TEXT, max_size=2)),
        )
        for _ in members
    )
    return ScoredGroup(group=RolloutGroup(request=request, completions=made.completions), rewards=rewards)


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(groups(), min_size=1, max_size=3))
def test_groups_come_back_as_they_were(tmp_path: Path, given_groups: list[ScoredGroup]) -> None:
    write_groups(tmp_path / "groups.jsonl", given_groups)
    assert read_groups(tmp_path / "groups.jsonl") == tuple(given_groups)


def test_infinite_log_probabilities_and_numbers_of_numpy_do_too(tmp_path: Path) -> None:
    odd: Any = completion((np.int64(3), 4), logprobs=(-math.inf, np.float32(-0.1)))
    write_groups(tmp_path / "groups.jsonl", [ScoredGroup(group=group([odd]), rewards=(output(np.float32(0.3)),))])
    (back,) = read_groups(tmp_path / "groups.jsonl")
    assert back.group.completions[0].token_ids == (3, 4)
    assert back.group.completions[0].logprobs == (-math.inf, float(np.float32(-0.1)))
    assert back.rewards[0].total == float(np.float32(0.3))


def test_a_state_holds_them_in_a_file_of_their_own(tmp_path: Path) -> None:
    records: Any = {"first": {}, "last": {}, "metrics_bytes": 0, "wall_s": 0.5, "best": None}
    carried = (scored([0.0, 1.0]), scored([None, 1.0]))
    state = TrainState(step=3, progress={"position": 12}, carried=carried, records=records)
    state.write(tmp_path)
    assert read_state(tmp_path) == state
    assert "carried" not in (tmp_path / TRAINER_STATE).read_text()
    assert len((tmp_path / CARRIED).read_text().splitlines()) == 2
    (tmp_path / CARRIED).unlink()
    assert read_state(tmp_path) == replace(state, carried=())


@pytest.mark.parametrize("line", ["{", "[]", '{"group": {}}', '{"group": {"request": {"new": 1}}, "rewards": []}'])
def test_a_line_that_is_not_a_group_is_refused_with_its_file(line: str, tmp_path: Path) -> None:
    (tmp_path / CARRIED).write_text(line + "\n")
    with pytest.raises(CheckpointError, match=r"carried\.jsonl: cannot be read"):
        read_groups(tmp_path / CARRIED)


WRONG: dict[str, tuple[str, Any]] = {
    "text among the ids": ("group.completions.0.token_ids", ["a", 2]),
    "ids below zero": ("group.completions.0.token_ids", [1, -5]),
    "ids of any size": ("group.completions.0.token_ids", [1, 2**70]),
    "ids of floats": ("group.completions.0.token_ids", [1, 1.5]),
    "ids of booleans": ("group.completions.0.token_ids", [1, True]),
    "too few log-probabilities": ("group.completions.0.logprobs", [0.0]),
    "log-probabilities of text": ("group.completions.0.logprobs", ["x", "y"]),
    "a mask that is too short": ("group.completions.0.sampled_mask", [True]),
    "a mask of text": ("group.completions.0.sampled_mask", ["x", "y"]),
    "a number for a text": ("group.completions.0.text", 5),
    "a version of text": ("group.completions.0.policy_version", "x"),
    "a version below zero": ("group.completions.0.policy_version", -1),
    "messages of numbers": ("group.completions.0.messages", [{"role": "user", "content": 5}]),
    "a state of a list": ("group.completions.0.state", [1]),
    "tool calls of text": ("group.completions.0.tool_calls", {"x": "y"}),
    "a total of text": ("rewards.0.total", "x"),
    "components of a number": ("rewards.0.components", 5),
    "metrics of text": ("rewards.0.metrics", {"a": "x"}),
    "reasons of a list": ("rewards.0.reasons", [1]),
    "an answer of a number": ("rewards.0.answer", 3),
    "values of text": ("rewards.0.token_values", ["x"]),
    "fewer rewards": ("rewards", []),
    "no completions": ("group.completions", []),
    "info of a number": ("group.request.problem.info", 5),
    "a prompt of text": ("group.request.prompt_ids", ["x"]),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_group_that_no_run_writes_is_refused_with_its_file(name: str, tmp_path: Path) -> None:
    at, value = WRONG[name]
    write_groups(tmp_path / CARRIED, [scored([1.0])])
    group = json.loads((tmp_path / CARRIED).read_text())
    group["group"]["completions"][0] |= {"token_ids": [1, 2], "logprobs": [-1.0, -2.0], "sampled_mask": [True, False]}
    *outer, last = at.split(".")
    (tmp_path / CARRIED).write_text(json.dumps(group))
    assert len(read_groups(tmp_path / CARRIED)) == 1
    inner: Any = group
    for key in outer:
        inner = inner[int(key) if key.isdigit() else key]
    inner[last] = value
    (tmp_path / CARRIED).write_text(json.dumps(group))
    with pytest.raises(CheckpointError, match=r"carried\.jsonl: cannot be read: .*version of reasonrl that wrote it"):
        read_groups(tmp_path / CARRIED)


def test_a_group_without_a_part_says_which(tmp_path: Path) -> None:
    (tmp_path / CARRIED).write_text('{"group": {}}')
    with pytest.raises(CheckpointError, match=r"carried\.jsonl: cannot be read: it lacks '\w+'; resume with"):
        read_groups(tmp_path / CARRIED)

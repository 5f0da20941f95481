"""JSON Lines and transcripts: strict, readable while written and after a crash."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from support.builders import completion, group, output, scored

from reasonrl import FinishReason, Message, Problem, ScoredGroup
from reasonrl.observability.transcripts import plain_prompt, transcript_records
from reasonrl.rundir import files
from reasonrl.rundir.jsonl import append_jsonl, last_record, read_jsonl, to_line, write_jsonl
from reasonrl.rundir.reading import UnreadableError

ODD = "a\u2028b\u0085c\x0bd\ne\té🙂"


def test_nan_and_infinity_become_null_however_deep() -> None:
    nan, inf = float("nan"), float("inf")
    line = to_line({"a": nan, "b": [1.5, -inf, {"c": (inf, 2)}], "d": True, "e": "NaN"})
    assert json.loads(line) == {"a": None, "b": [1.5, None, {"c": [None, 2]}], "d": True, "e": "NaN"}
    assert line.endswith("}\n")
    assert line.count("\n") == 1


def test_any_text_survives(tmp_path: Path) -> None:
    path = tmp_path / "new" / "m.jsonl"
    write_jsonl(path, [{"t": ODD}, {"t": "plain"}])
    append_jsonl(path, {"t": ODD[::-1]})
    assert [record["t"] for record in read_jsonl(path)] == [ODD, "plain", ODD[::-1]]


def test_half_a_character_is_written_and_read_back(tmp_path: Path) -> None:
    half = {"t": "a\udc80\ud83d", "\ud800": ["\\udc80 é"]}
    write_jsonl(tmp_path / "m.jsonl", [half])
    append_jsonl(tmp_path / "m.jsonl", half)
    assert list(read_jsonl(tmp_path / "m.jsonl")) == [half, half]


@pytest.mark.parametrize("cut", range(1, 16))
def test_a_last_line_that_was_cut_off_is_left_out(cut: int, tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    whole = to_line({"n": 1}).encode() + to_line({"t": "é🙂"}).encode()
    path.write_bytes(whole[:-cut])
    expected = [{"n": 1}] if cut > 1 else [{"n": 1}, {"t": "é🙂"}]
    assert list(read_jsonl(path)) == expected


def test_a_whole_line_that_is_wrong_is_not_left_out(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    path.write_text('{"n": 1}\n{"n": \n')
    with pytest.raises(UnreadableError, match="line 2 does not hold a JSON object"):
        list(read_jsonl(path))


WRITERS: dict[str, Callable[[Path], None]] = {
    "a line": lambda path: append_jsonl(path, {"n": 1.0}),
    "lines": lambda path: write_jsonl(path, [{"n": 1}]),
    "a text": lambda path: files.write_text(path, "x"),
    "in one step": lambda path: files.write_json(path.with_name("x"), {"n": 1}),
}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("kind", WRITERS)
def test_a_full_disk_is_told_with_the_file(kind: str, tmp_path: Path) -> None:
    (tmp_path / ".x.tmp").symlink_to("/dev/full")
    with pytest.raises(OSError, match=r"No space left on device: '.*/\.x\.tmp'"):
        WRITERS[kind](tmp_path / ".x.tmp")


@pytest.mark.parametrize("line", ["3", "[" * 100_000, "null", "{", '"step"'])
def test_the_last_record_of_a_damaged_file_is_none(line: str, tmp_path: Path) -> None:
    (tmp_path / "m.jsonl").write_text('{"n": 1}\n' + line + "\n")
    assert last_record(tmp_path / "m.jsonl") == {}


def test_an_empty_file_has_no_records(tmp_path: Path) -> None:
    (tmp_path / "m.jsonl").write_text("")
    assert list(read_jsonl(tmp_path / "m.jsonl")) == []


def test_a_transcript_says_everything_of_a_completion() -> None:
    done = completion((5, 6, 7), text="<answer>", reason=FinishReason.LENGTH, version=9)
    reward = output(0.5, correct=False, answer="3+5", reasons={"r": "wrong_value"})
    scored_group = ScoredGroup(group=group([done], prompt=(1, 2), numbers=[3, 5]), rewards=(reward,))
    (record,) = transcript_records([scored_group])
    assert record == {
        "schema": 1,
        "problem_id": "p",
        "sample": 0,
        "prompt": "say",
        "prompt_text": "",
        "info": {"numbers": [3, 5]},
        "completion": "<answer>",
        "prompt_tokens": 2,
        "completion_tokens": 3,
        "finish_reason": "length",
        "policy_version": 9,
        "reward": 0.5,
        "components": {"r": 0.5},
        "correct": False,
        "answer": "3+5",
        "reasons": {"r": "wrong_value"},
    }


@pytest.mark.parametrize(("limit", "samples"), [(None, [0, 1, 0, 1]), (3, [0, 1, 0]), (0, []), (9, [0, 1, 0, 1])])
def test_the_first_so_many_completions(limit: int | None, samples: list[int]) -> None:
    records = transcript_records([scored([0.0, 1.0]), scored([None, 1.0])], limit)
    assert [record["sample"] for record in records] == samples


def test_prompts_as_json() -> None:
    assert plain_prompt(Problem(id="p", prompt="2+2=", assistant_prefix="<think>")) == "2+2=<think>"
    talk = (Message(role="user", content="hi"),)
    user = {"role": "user", "content": "hi"}
    assert plain_prompt(Problem(id="p", prompt=talk)) == [user]
    assert plain_prompt(Problem(id="p", prompt=talk, assistant_prefix="<think>")) == [
        user,
        {"role": "assistant", "content": "<think>"},
    ]

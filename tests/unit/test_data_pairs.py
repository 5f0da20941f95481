"""Rows to imitate: prompt and completion, each text or messages, or a conversation."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from reasonrl import Message
from reasonrl.data.pairs import read_pairs
from reasonrl.errors import RecipeError

USER = {"role": "user", "content": "1+1?"}
ANSWER = {"role": "assistant", "content": " 2\n"}
ASKED = (Message(role="user", content="1+1?"),)


def write(folder: Path, *rows: Any) -> str:
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(folder / "pairs.jsonl")


@pytest.mark.parametrize(
    ("row", "options", "prompt", "completion"),
    [
        ({"prompt": "1+1=", "completion": " 2\n"}, {}, "1+1=", " 2\n"),
        ({"prompt": "1+1=", "completion": ""}, {}, "1+1=", ""),
        ({"prompt": 11, "completion": 2.5}, {}, "11", "2.5"),
        ({"prompt": [USER], "completion": [ANSWER]}, {}, ASKED, " 2\n"),
        ({"prompt": "1+1=", "completion": [ANSWER]}, {}, "1+1=", " 2\n"),
        ({"prompt": [USER], "completion": "2"}, {}, ASKED, "2"),
        ({"messages": [USER, ANSWER]}, {}, ASKED, " 2\n"),
        ({"messages": [USER, ANSWER], "prompt": "1+1?", "completion": None}, {}, ASKED, " 2\n"),
        ({"messages": [USER, ANSWER], "prompt": "a", "completion": "b"}, {}, "a", "b"),
        ({"q": "a", "x": {"y": "b"}}, {"prompt": "q", "completion": "x.y"}, "a", "b"),
    ],
)
def test_what_a_row_may_be(row: Any, options: Any, prompt: Any, completion: str, tmp_path: Path) -> None:
    path = write(tmp_path, row)
    (pair,) = read_pairs(path, **options)
    assert (pair.problem.prompt, pair.completion) == (prompt, completion)
    assert pair.problem.id == f"{path}:1"


def test_earlier_turns_are_the_prompt(tmp_path: Path) -> None:
    (pair,) = read_pairs(write(tmp_path, {"messages": [USER, ANSWER, USER, {**ANSWER, "content": "still 2"}]}))
    assert [turn.role for turn in pair.problem.prompt] == ["user", "assistant", "user"]  # type: ignore[union-attr]
    assert pair.completion == "still 2"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"question": "a", "answer": "b"}, "expected non-null columns 'prompt' and 'completion', or 'messages'; got "
         "question, answer; set data.prompt and data.completion to your columns"),
        ({"prompt": "a"}, "expected non-null columns 'prompt' and 'completion'"),
        ({"prompt": None, "completion": "b"}, "expected non-null columns 'prompt' and 'completion'"),
        ([1], "expected an object"),
        ({"prompt": True, "completion": "b"}, "column 'prompt' must be text or a number, got true"),
        ({"prompt": "a", "completion": {"text": "b"}}, "column 'completion' must be text or a number, got {'text'"),
        ({"prompt": "a", "completion": "\udc00"}, "column 'completion' has a lone surrogate"),
        ({"prompt": "a", "completion": [USER]}, "must be text or one assistant message, got messages of user"),
        ({"prompt": "a", "completion": [ANSWER, ANSWER]}, "one assistant message, got messages of assistant, a"),
        ({"messages": [USER]}, "column 'messages' must end with an assistant message"),
        ({"messages": [ANSWER]}, "at least one other message; got assistant"),
        ({"messages": [USER, ANSWER, USER]}, "got user, assistant, user"),
        ({"messages": "hello"}, "column 'messages' must be a list of messages, got 'hello'"),
    ],
)  # fmt: skip
def test_a_bad_row_is_named_by_file_and_line(row: Any, message: str, tmp_path: Path) -> None:
    path = write(tmp_path, {"prompt": "a", "completion": "b"}, row)
    with pytest.raises(RecipeError, match=rf"^{re.escape(path)}:2: .*{re.escape(message)}"):
        read_pairs(path)


def test_errors_about_the_whole_file_name_the_key(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"^data\.path: .*none\.jsonl: no such file"):
        read_pairs(str(tmp_path / "none.jsonl"))

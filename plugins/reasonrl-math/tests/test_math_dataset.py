"""Problems from files: columns, splits, and errors that name file and row."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from reasonrl import Completion, FinishReason, Message, RewardContext, TaskContext
from reasonrl.errors import RecipeError
from reasonrl_math.config import MathConfig
from reasonrl_math.dataset import EXAMPLES, MathTask
from reasonrl_math.rewards import BoxedReward


def make(**options: Any) -> MathTask:
    return MathTask(MathConfig(**options), TaskContext(seed=0))


def write(path: Path, *rows: Any) -> str:
    path.write_text("".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in rows), encoding="utf-8")
    return str(path)


def test_the_examples_are_right() -> None:
    """Every calculation of their solutions holds, and the last one gives the answer."""
    rows = [json.loads(line) for line in EXAMPLES.read_text().splitlines()]
    assert len(rows) >= 60
    for row in rows:
        solution, _, answer = row["answer"].rpartition("####")
        for left, right in re.findall(r"([0-9][0-9 +*/-]*) = ([0-9/]+)", solution):
            assert abs(_value(left) - _value(right)) < 1e-9, row
        assert answer.strip()


def _value(text: str) -> float:
    total = 0.0
    for sign, term in re.findall(r"(^|[+-]) ?([0-9 */]+)", text.strip()):
        value = 1.0
        for operator, number in re.findall(r"(^|[*/]) ?([0-9]+)", term.strip()):
            value = value / int(number) if operator == "/" else value * int(number)
        total += -value if sign == "-" else value
    return total


@pytest.mark.parametrize("template", ["base", "chat"])
def test_references_earn_the_maximum_and_splits_are_apart(template: str) -> None:
    task, reward, prompts = make(template=template), BoxedReward(None, RewardContext()), {}  # type: ignore[arg-type]
    for split in ("train", "eval"):
        problems = [task.problem(split, i) for i in range(task.size(split))]  # type: ignore[arg-type]
        prompts[split] = {problem.prompt for problem in problems}
        for problem in problems[:12]:
            text = task.reference(problem)
            end = FinishReason.EOS
            completion = Completion(token_ids=(), logprobs=None, text=text, finish_reason=end)
            assert reward.score(problem, completion).value == 1.0
    assert prompts["eval"]
    assert not prompts["train"] & prompts["eval"]
    with pytest.raises(IndexError, match="math: eval has"):
        task.problem("eval", 10_000)


def test_columns_are_configurable_and_rows_come_once(tmp_path: Path) -> None:
    rows = [{"q": f"What is {i} + 1?", "a": i + 1} for i in range(60)]
    path = write(tmp_path / "x.jsonl", *rows, "", rows[0])
    task = make(path=path, question="q", answer="a")
    assert task.size("train") + task.size("eval") == 60
    assert task.size("eval") > 0


def test_json_and_parquet_are_read_too(tmp_path: Path) -> None:
    from pyarrow import Table, parquet

    rows = [{"question": f"{i}?", "answer": f"so\n#### {i}"} for i in range(40)]
    (tmp_path / "x.json").write_text(json.dumps(rows))
    parquet.write_table(Table.from_pylist(rows), tmp_path / "x.parquet")
    one, two = (make(path=str(tmp_path / name)) for name in ("x.json", "x.parquet"))
    assert one.problem("train", 0) == two.problem("train", 0)
    assert one.problem("train", 0).info["solution"] == "so"


def test_nested_columns_and_conversations_are_taken_as_they_are(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "Think in <think> tags. 1+1?"}]
    rows = [{"prompt": turns, "reward_model": {"ground_truth": 2}, "extra_info": {"index": 0}}]
    path, other = write(tmp_path / "x.jsonl", *rows), write(tmp_path / "y.jsonl", {**rows[0], "prompt": "2?"})
    task = make(path=path, eval_path=other, question="prompt", answer="reward_model.ground_truth")
    problem = task.problem("train", 0)
    assert problem.prompt == (Message(role="user", content="Think in <think> tags. 1+1?"),)
    assert problem.info["answer"] == "2"


def test_the_rows_are_accounted_for(tmp_path: Path) -> None:
    """Contradictory rows are all dropped: there is no telling which one is right."""
    rows = [{"question": f"What is {i}?", "answer": i} for i in range(40)]
    twice = [rows[3], {"question": " what IS 4? ", "answer": "4"}]
    against = [{"question": "What is 5?", "answer": 6}]
    task = make(path=write(tmp_path / "x.jsonl", *rows, *twice, *against))
    (summary,) = task.data_summary()
    assert (summary.source, summary.rows) == (str(tmp_path / "x.jsonl"), 43)
    assert summary.kept == {"train": task.size("train"), "eval": task.size("eval")}
    assert summary.dropped == {"repeated": 2, "contradictory: one question, several answers": 2}
    assert "What is 5?" not in {task.problem("train", i).prompt[1].content for i in range(task.size("train"))}  # type: ignore[union-attr]


def test_each_file_is_accounted_for(tmp_path: Path) -> None:
    train = write(tmp_path / "a.jsonl", *({"question": f"{i}?", "answer": i} for i in range(9)))
    held_out = write(tmp_path / "b.jsonl", *({"question": f"{i % 3}?", "answer": i % 3} for i in range(6)))
    first, second = make(path=train, eval_path=held_out).data_summary()
    assert (first.kept, first.dropped["held out"], first.rows) == ({"train": 6}, 3, 9)
    assert (second.kept, second.dropped["repeated"], second.rows) == ({"eval": 3}, 3, 6)
    with pytest.raises(RecipeError, match=r"a\.jsonl: 9 rows read, 0 kept .*9 held out.*no problems to train on"):
        make(path=train, eval_path=train)


def test_a_file_of_held_out_problems_takes_its_own_away(tmp_path: Path) -> None:
    train = write(tmp_path / "a.jsonl", *({"question": f"{i}?", "answer": i} for i in range(9)))
    held_out = write(tmp_path / "b.jsonl", *({"question": f"{i} ?".replace(" ", ""), "answer": i} for i in range(3)))
    task = make(path=train, eval_path=held_out)
    assert (task.size("train"), task.size("eval")) == (6, 3)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["{"], "x.jsonl:1: not valid JSON"),
        (
            [{"question": "a", "answer": "1"}, {"question": "b"}],
            "x.jsonl:2: no column 'answer'; the row has question",
        ),
        (
            [{"question": "a", "answer": "1"}, "", {"question": " ", "answer": 1}],
            "x.jsonl:3: column 'question' is empty",
        ),
        ([{"question": "a", "answer": []}], "x.jsonl:1: column 'answer' must be text or a number, got []"),
        ([{"question": "a", "answer": ["1", [2]]}], "x.jsonl:1: column 'answer' must be text or a number, got [2]"),
        ([{"question": "a", "answer": ["1", " "]}], "x.jsonl:1: column 'answer' is empty"),
        ([{"question": "a", "answer": "so #### "}], "x.jsonl:1: nothing follows the last '####'"),
        ([[1]], "x.jsonl:1: expected an object"),
        ([], "x.jsonl: empty file"),
    ],
)
def test_a_bad_row_is_named(rows: list[Any], message: str, tmp_path: Path) -> None:
    path = write(tmp_path / "x.jsonl", *rows)
    with pytest.raises(ValueError, match=re.escape(message)):
        make(path=path)


def test_a_missing_or_broken_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no\.jsonl: no such file"):
        make(path=str(tmp_path / "no.jsonl"))
    (tmp_path / "x.parquet").write_text("no parquet")
    with pytest.raises(ValueError, match=r"x\.parquet: not Parquet data"):
        make(path=str(tmp_path / "x.parquet"))
    (tmp_path / "x.json").write_text("{}")
    with pytest.raises(ValueError, match=r"x\.json: expected a list"):
        make(path=str(tmp_path / "x.json"))
    with pytest.raises(ValueError, match="eval_path must be null"):
        MathConfig(eval_path="x.jsonl", eval_split="test")

"""The task's problems, templates, references, demonstrations and data sets."""

import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from reasonrl import Completion, FinishReason, Message, NoConfig, Problem, RewardContext, Score, TaskContext
from reasonrl.errors import RecipeError
from reasonrl_countdown import extract_answer, verify
from reasonrl_countdown.behaviors import behaviors
from reasonrl_countdown.config import CountdownConfig
from reasonrl_countdown.demonstration import MAX_RESULT, random_attempt
from reasonrl_countdown.generator import Instance, split_of
from reasonrl_countdown.rewards import CountdownReward, TinyZeroReward
from reasonrl_countdown.task import CountdownTask


def _task(**options: Any) -> CountdownTask:
    return CountdownTask(CountdownConfig(**options), TaskContext(seed=0))


def _completion(text: str) -> Completion:
    return Completion(token_ids=(), logprobs=None, text=text, finish_reason=FinishReason.EOS)


def _fixed_problem(task: CountdownTask, numbers: str = "8,5,12", target: str = "28") -> Problem:
    return task.problem_from_fields({"numbers": numbers, "target": target})


def test_ids_and_info() -> None:
    problem = _task().problem("train", 123)
    assert problem.id == "countdown/train/123"
    assert set(problem.info) == {"numbers", "target"}
    assert json.loads(json.dumps(dict(problem.info))) == problem.info
    assert _task().size("train") is None


def test_compact_template() -> None:
    problem = _fixed_problem(_task(template="compact"))
    assert problem.prompt == "Numbers: 8 5 12. Target: 28.\n"
    assert problem.assistant_prefix == "<think>\n"


def test_base_template_is_raw_text_that_opens_the_thinking() -> None:
    problem = _fixed_problem(_task(template="base"))
    assert isinstance(problem.prompt, str)
    assert "[8, 5, 12]" in problem.prompt
    assert "equals 28" in problem.prompt
    assert problem.prompt.endswith("\nAssistant:")
    assert problem.assistant_prefix.endswith("<think>")


def test_chat_template_is_messages() -> None:
    problem = _fixed_problem(_task(template="chat"))
    assert isinstance(problem.prompt, tuple)
    assert [m.role for m in problem.prompt] == ["system", "user"]
    assert all(isinstance(m, Message) for m in problem.prompt)
    assert "[8, 5, 12]" in problem.prompt[1].content
    assert problem.assistant_prefix.endswith("<think>")


def test_the_example_in_the_prompt_is_never_paid() -> None:
    """An answer echoed from the prompt uses the prompt's numbers, and rewards see the completion alone."""
    task = _task(template="base")
    problem = _fixed_problem(task, "1,2,3", "1")  # the example's own numbers and value
    reward = CountdownReward(NoConfig(), RewardContext())
    assert reward.score(problem, _completion("")).value == 0.0
    assert reward.score(problem, _completion("I do not know.</think>")).value == 0.0


@pytest.mark.parametrize("template", ["base", "chat", "compact"])
def test_references_earn_the_maximum(template: str) -> None:
    task = _task(template=template)
    for split in ("train", "eval"):
        for index in range(50):
            problem = task.problem(split, index)
            completion = _completion(task.reference(problem) or "")
            for reward in (CountdownReward, TinyZeroReward):
                score = reward(NoConfig(), RewardContext()).score(problem, completion)
                assert (score.value, score.correct, score.reason) == (1.0, True, "ok")


def test_an_unsolvable_problem_has_no_reference() -> None:
    task = _task()
    assert task.reference(_fixed_problem(task, "1,1,1", "99")) is None


def test_problem_from_fields() -> None:
    problem = _task().problem_from_fields({"numbers": "3, 5,8", "target": " 16 "})
    assert problem.info == {"numbers": [3, 5, 8], "target": 16}
    assert problem.id == "countdown/custom/3,5,8=16"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "needs numbers and target, got nothing"),
        ({"numbers": "3,5"}, "needs numbers and target, got numbers"),
        ({"numbers": "3,5", "target": "8", "x": "1"}, "got numbers, target, x"),
        ({"numbers": "", "target": "8"}, "numbers must be whole numbers"),
        ({"numbers": "3,-5", "target": "8"}, "numbers must be whole numbers"),
        ({"numbers": "3,٥", "target": "8"}, "numbers must be whole numbers"),
        ({"numbers": "1," * 6 + "1", "target": "8"}, "1 to 6 integers, got 7"),
        ({"numbers": "3,5", "target": "9" * 5000}, "target must be whole numbers"),
    ],
)
def test_bad_fields_are_refused(fields: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _task().problem_from_fields(fields)


def test_a_negative_index_is_refused() -> None:
    with pytest.raises(IndexError, match="index must be >= 0, got -1"):
        _task().problem("train", -1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"source": "web"}, "source must be one of generated, dataset, got 'web'"),
        ({"template": "bse"}, "template must be one of base, chat, compact"),
        ({"min_numbers": 1}, r"min_numbers must be in \[2, 6\], got 1"),
        (
            {"min_numbers": 5, "max_numbers": 4},
            r"max_numbers must be in \[min_numbers, 6\] = \[5, 6\], got 4",
        ),
        ({"max_numbers": 7}, "max_numbers"),
        ({"min_number": 0}, "min_number must be"),
        ({"min_target": -1}, "min_target must be"),
        ({"max_target": 5}, "max_target must be"),
        ({"mean_attempts": 0.5}, "mean_attempts must be"),
        ({"patient_frac": 1.5}, "patient_frac must be"),
        ({"patient_attempts": 0}, "patient_attempts must be"),
        ({"numbers_weights": [1.0]}, "numbers_weights must be"),
        ({"numbers_weights": [0.0, 0.0]}, "numbers_weights must be"),
        ({"numbers_weights": [1.0, float("nan")]}, "numbers_weights must be"),
        ({"mean_attempts": float("nan")}, "mean_attempts must be"),
        ({"aimed_frac": 1.5}, "aimed_frac must be in"),
        ({"source": "dataset", "dataset": ""}, "dataset must be a name"),
        ({"source": "dataset", "nums_column": ""}, "nums_column must be a name"),
    ],
)
def test_config_names_the_field_that_is_out_of_range(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CountdownConfig(**options)


def test_an_attempt_is_honest_arithmetic() -> None:
    rng = random.Random(0)
    for _ in range(500):
        numbers = [rng.randint(1, 20) for _ in range(rng.randint(2, 5))]
        attempt = random_attempt(numbers, rng)
        assert verify(attempt.expression, numbers, attempt.value).correct
        assert len(attempt.steps) == len(numbers) - 1
        for step in attempt.steps:
            expression, result = step.split("=")
            operands = [int(x) for x in expression.translate(str.maketrans("+-*/", "    ")).split()]
            assert verify(expression, operands, int(result)).correct
            assert 0 <= int(result) < MAX_RESULT


def test_an_aimed_attempt_ends_as_near_as_it_can() -> None:
    rng = random.Random(0)
    for _ in range(300):
        numbers = [rng.randint(1, 20) for _ in range(rng.randint(2, 4))]
        target = rng.randint(1, 100)
        attempt = random_attempt(numbers, rng, aim=target)
        assert verify(attempt.expression, numbers, attempt.value).correct
        assert behaviors(f"{', '.join(attempt.steps)} no\n</think>", numbers, target)["aimed"] == 1.0


def test_a_share_of_the_demonstrations_says_its_aim_and_follows_it() -> None:
    task = _task(template="compact", max_numbers=3, max_number=20, aimed_frac=0.5)
    says, follows = [], []
    for index in range(400):
        problem = task.problem("train", index)
        text = task.demonstration(problem, random.Random(index))
        says.append(text.startswith(f"aim {problem.info['target']}\n"))
        follows.append(task.behaviors(problem, text)["aimed"] == 1.0)
    assert sum(says) / len(says) == pytest.approx(0.5, abs=0.08)
    assert all(follow for say, follow in zip(says, follows, strict=True) if say)
    by_chance = [follow for say, follow in zip(says, follows, strict=True) if not say]
    assert sum(by_chance) / len(by_chance) < 0.5


def test_demonstrations_search_check_and_give_up() -> None:
    task = _task(template="compact", max_numbers=3, max_number=20, min_target=1, max_target=100)
    num_right = 0
    for index in range(2000):
        problem = task.problem("train", index)
        text = task.demonstration(problem, random.Random(index))
        thinking, _, answer = text.partition("</think>\n")
        *attempts, last = thinking.splitlines()
        assert all(line.endswith(" no") for line in attempts)
        is_right = last.endswith(" yes")
        assert is_right or (last == "stop" and attempts)
        given = extract_answer(text)
        assert answer == f"<answer>{given}</answer>"
        assert verify(given or "", problem.info["numbers"], problem.info["target"]).correct is is_right
        num_right += is_right
    # Poor, not hopeless: what reinforcement learning starts from.
    assert 0.15 < num_right / 2000 < 0.27


def test_demonstrations_depend_on_the_given_generator_alone() -> None:
    task = _task(template="base")
    problem = task.problem("train", 0)
    first = task.demonstration(problem, random.Random(4))
    assert first == task.demonstration(problem, random.Random(4))
    assert first.startswith("\n")  # after the "<think>" that the base template opens
    assert len({task.demonstration(problem, random.Random(i)) for i in range(20)}) > 1


def test_giving_up_follows_the_configured_mean() -> None:
    task = _task(template="compact", mean_attempts=5.0)
    problem = _fixed_problem(task, "1,1,1", "99")  # cannot be solved, so every search ends by giving up
    counts = [task.demonstration(problem, random.Random(i)).count(" no\n") for i in range(4000)]
    assert min(counts) == 1
    assert 4.7 < sum(counts) / len(counts) < 5.3


def _score(reward: type[CountdownReward], text: str) -> Score:
    return reward(NoConfig(), RewardContext()).score(_fixed_problem(_task()), _completion(text))


@pytest.mark.parametrize(
    ("text", "strict", "tinyzero", "answer", "reason"),
    [
        ("</think><answer>8*5-12</answer>", 1.0, 1.0, "8*5-12", "ok"),
        ("</think>\n<answer>\n8*5-12\n</answer>\n", 1.0, 1.0, "8*5-12", "ok"),
        ("</think><answer>8*5-12 = 28</answer>", 0.0, 0.1, "8*5-12 = 28", "equation"),
        ("</think><answer>8+5+12</answer>", 0.0, 0.1, "8+5+12", "wrong_value"),
        ("</think><answer>28</answer>", 0.0, 0.1, "28", "bad_numbers"),
        ("</think><answer>no idea</answer>", 0.0, 0.1, "no idea", "bad_char"),
        ("</think><answer> </answer>", 0.0, 0.0, None, "empty"),
        ("</think>8*5-12", 0.0, 0.0, None, "no_answer"),
        ("<answer>8*5-12</answer></think>", 0.0, 0.0, None, "no_answer"),
        ("</think><answer>8*5-12</answer><answer>1</answer>", 0.0, 0.0, None, "several_answers"),
    ],
)
def test_rewards(text: str, strict: float, tinyzero: float, answer: str | None, reason: str) -> None:
    for reward, value in ((CountdownReward, strict), (TinyZeroReward, tinyzero)):
        score = _score(reward, text)
        assert (score.value, score.answer, score.reason) == (value, answer, reason)
        assert score.correct is (value == 1.0)


def test_a_huge_answer_is_recorded_shortened() -> None:
    score = _score(CountdownReward, f"<answer>{'1+' * 500_000}</answer>")
    assert score.reason == "too_long"
    assert len(score.answer or "") == 512


ROWS: list[dict[str, Any]] = [{"nums": [n, 5, 12], "target": n + 17} for n in range(1, 60)]


def _key(row: dict[str, Any]) -> str:
    return Instance(tuple(row["nums"]), row["target"]).key


def _write(path: Path, rows: list[dict[str, Any]]) -> str:
    if path.suffix == ".parquet":
        import pyarrow
        from pyarrow import parquet

        parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows))
    else:
        path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return str(path)


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".parquet"])
def test_a_local_data_set_is_split_by_key(tmp_path: Path, suffix: str) -> None:
    outside = [{"nums": [1, 2], "target": 28}, {"nums": [1, 2, 3], "target": 5000}]
    repeated = [{"nums": [12, 5, 1], "target": 18}]
    path = _write(tmp_path / f"rows{suffix}", ROWS + outside + repeated)
    task = _task(source="dataset", dataset=path)
    sizes = {split: task.size(split) for split in ("train", "eval")}
    assert sum(size or 0 for size in sizes.values()) == len(ROWS)
    for split, size in sizes.items():
        assert size
        for index in range(size):
            problem = task.problem(split, index)
            assert split_of(_key({"nums": problem.info["numbers"], "target": problem.info["target"]})) == split
    in_file_order = [row for row in ROWS if split_of(_key(row)) == "train"]
    assert task.problem("train", 0).info == {
        "numbers": in_file_order[0]["nums"],
        "target": in_file_order[0]["target"],
    }
    with pytest.raises(IndexError, match=f"train has {sizes['train']} problems"):
        task.problem("train", sizes["train"] or 0)


def test_the_rows_are_accounted_for(tmp_path: Path) -> None:
    outside = [{"nums": [1, 2], "target": 18}, {"nums": [1, 2, 3], "target": 5000}]
    hopeless = [{"nums": [1, 1, 1], "target": 99}]
    path = _write(tmp_path / "rows.jsonl", [*hopeless, *ROWS, *outside, ROWS[3], {"nums": [12, 5, 1], "target": 18}])
    task = _task(source="dataset", dataset=path)
    (summary,) = task.data_summary()
    assert summary.rows == len(ROWS) + 5
    assert summary.kept == {"train": task.size("train"), "eval": task.size("eval")}
    assert sum(summary.kept.values()) == len(ROWS)
    assert summary.dropped == {
        "outside the ranges of numbers, number and target": 2,
        "repeated": 2,
        "without a solution": 1,
    }
    assert all(task.reference(task.problem("train", i)) for i in range(task.size("train") or 0))
    assert _task().data_summary() == []


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], r"task.dataset: .*rows\.jsonl: empty file"),
        ([{"nums": [1, 2], "target": 3}], r"1 rows read, 0 kept .*, 1 dropped \(1 outside the ranges.*widen"),
        ([{"nums": [1, 1, 1], "target": 99}], r"rows\.jsonl: 1 rows read, 0 kept .*\(1 without a solution\)"),
        (
            [{"numbers": [1, 2, 3], "target": 30}],
            r"rows\.jsonl:1: no column 'nums'; the row has numbers, target",
        ),
        (
            [{"nums": 123, "target": 30}],
            r"rows\.jsonl:1: column 'nums' must be a list of whole numbers, got 123",
        ),
        (
            [ROWS[0], {"nums": [1.5, 2, 3], "target": 30}],
            r"rows\.jsonl:2: column 'nums' must hold whole numbers",
        ),
        ([{"nums": [1, True, 3], "target": 30}], r"rows\.jsonl:1: column 'nums' must hold .* got true"),
        ([{"nums": [1, 2, 3], "target": None}], r"rows\.jsonl:1: column 'target' must hold .* got null"),
    ],
)
def test_a_bad_data_set_is_refused(tmp_path: Path, rows: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _task(source="dataset", dataset=_write(tmp_path / "rows.jsonl", rows))


def test_a_missing_or_broken_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"^task.dataset: .*none\.jsonl: no such file"):
        _task(source="dataset", dataset=str(tmp_path / "none.jsonl"))
    (tmp_path / "broken.jsonl").write_text('{"nums": [1, 2')
    with pytest.raises(RecipeError, match=r"broken\.jsonl:1: not valid JSON"):
        _task(source="dataset", dataset=str(tmp_path / "broken.jsonl"))


def test_columns_may_have_other_names_and_lie_inside_others(tmp_path: Path) -> None:
    rows = [{"truth": {"numbers": row["nums"], "target": row["target"]}} for row in ROWS]
    columns = {"nums_column": "truth.numbers", "target_column": "truth.target"}
    nested = _task(source="dataset", dataset=_write(tmp_path / "nested.parquet", rows), **columns)
    plain = _task(source="dataset", dataset=_write(tmp_path / "plain.jsonl", ROWS))
    assert nested.problem("train", 3) == plain.problem("train", 3)
    (tmp_path / "rows.csv").write_text("nums,target\n" + "".join(f'"{row["nums"]}",{row["target"]}\n' for row in ROWS))
    assert _task(source="dataset", dataset=str(tmp_path / "rows.csv")).problem("train", 3) == plain.problem("train", 3)


def test_a_data_set_may_lie_in_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    _write(tmp_path / "rows.jsonl", ROWS)
    assert _task(source="dataset", dataset="~/rows.jsonl").size("train")


def test_a_data_set_folder_is_read_through_datasets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same path that a hub name takes, without the network."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "rows").mkdir()
    _write(tmp_path / "rows" / "train.jsonl", ROWS)
    task = _task(source="dataset", dataset=str(tmp_path / "rows"))
    assert (task.size("train") or 0) + (task.size("eval") or 0) == len(ROWS)
    with pytest.raises(RecipeError, match=r"task.dataset: .*row: no such file; did you mean .*rows"):
        _task(source="dataset", dataset=str(tmp_path / "row"))


def test_patient_demonstrations_give_up_late_and_evenly() -> None:
    task = _task(template="compact", patient_frac=1.0, patient_attempts=4)
    problem = _fixed_problem(task, "1,1,1", "99")  # cannot be solved, so every search ends by giving up
    counts = Counter(task.demonstration(problem, random.Random(i)).count(" no\n") for i in range(2000))
    assert set(counts) == {1, 2, 3, 4}
    assert all(430 < count < 570 for count in counts.values())


def test_weights_set_how_often_each_amount_of_numbers_comes() -> None:
    task = _task(min_numbers=3, max_numbers=4, numbers_weights=[0.8, 0.2])
    three = sum(len(task.problem("train", i).info["numbers"]) == 3 for i in range(500))
    assert 360 < three < 440
    only_four = _task(min_numbers=3, max_numbers=4, numbers_weights=[0.0, 1.0])
    assert all(len(only_four.problem("train", i).info["numbers"]) == 4 for i in range(20))

"""Known answers: where they stand in their column, how they are read, and what becomes of those that cannot be."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from reasonrl import RewardContext, TaskContext
from reasonrl.errors import RecipeError
from reasonrl.testing import completion_of
from reasonrl_math.config import MathConfig
from reasonrl_math.dataset import MathTask
from reasonrl_math.rewards import BoxedReward

RECIPE = """
name: known
model: {name: countdown-base}
task: {name: math, path: x.jsonl, question: problem, answer: solution, template: base}
algorithm: {name: grpo}
sampling: {group_size: 2, max_prompt_tokens: 1000, max_completion_tokens: 8}
trainer: {steps: 1, prompts_per_step: 2}
evaluation: {suites: null}
"""


def write(folder: Path, answers: list[Any], *, problem: str = "question", solution: str = "answer") -> str:
    rows = [{problem: f"Problem {i}?", solution: answer} for i, answer in enumerate(answers)]
    (folder / "x.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(folder / "x.jsonl")


def infos(folder: Path, answers: list[Any], **options: Any) -> dict[str, dict[str, Any]]:
    """``info`` of each problem by its answer."""
    task = MathTask(MathConfig(path=write(folder, answers), **options), TaskContext(seed=0))
    problems = [task.problem(split, index) for split in ("train", "eval") for index in range(task.size(split))]
    return {problem.info["answer"]: dict(problem.info) for problem in problems}


def command(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "reasonrl", *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
    )


@pytest.mark.parametrize(
    ("column", "answer", "solution"),
    [
        ("1/2", "1/2", ""),
        (12.5, "12.5", ""),
        ("So 3 + 4 = 7.\n#### 7", "7", "So 3 + 4 = 7."),
        ("It is $\\boxed{\\frac{1}{2}}$.", "\\frac{1}{2}", "It is $\\boxed{\\frac{1}{2}}$."),
        ("First \\boxed{1}, in the end \\boxed{2}.", "2", "First \\boxed{1}, in the end \\boxed{2}."),
        ("\\boxed{3}", "3", ""),
        ("Hence $\\fbox{4}$.", "4", "Hence $\\fbox{4}$."),
        ("Thus $x = \\boxed 5$.", "5", "Thus $x = \\boxed 5$."),
        ("\\boxed{1} is wrong\n#### 2", "2", "\\boxed{1} is wrong"),
    ],
)
def test_where_the_answer_stands_in_its_column(column: Any, answer: str, solution: str, tmp_path: Path) -> None:
    found = infos(tmp_path, [column])[answer]
    assert (found["answer"], found["solution"]) == (answer, solution)


def test_a_solution_column_gives_references_that_are_right(tmp_path: Path) -> None:
    answers = [f"We add. The answer is $\\boxed{{\\frac{{{i}}}{{7}}}}$." for i in range(20)]
    path = write(tmp_path, answers, problem="problem", solution="solution")
    task = MathTask(MathConfig(path=path, question="problem", answer="solution"), TaskContext(seed=0))
    reward = BoxedReward(None, RewardContext())  # type: ignore[arg-type]
    for index in range(task.size("train")):
        problem = task.problem("train", index)
        assert "We add." in task.reference(problem)
        assert reward.score(problem, completion_of(task.reference(problem))).value == 1.0


def test_the_problem_says_how_its_answer_was_read(tmp_path: Path) -> None:
    found = infos(tmp_path, ["1/2", "1234.", "1\\,234", "12 1/2", "(A)", "no solution", "x > 5"])
    assert {answer: info["read_as"] for answer, info in found.items()} == {
        "1/2": "a fraction",
        "1234.": "a whole number",
        "1\\,234": "a whole number",
        "12 1/2": "a mixed number",
        "(A)": "a letter",
        "no solution": "text",
        "x > 5": "a pair in order, or an open interval, for x",
    }


def test_what_cannot_be_read_is_dropped_and_counted(tmp_path: Path) -> None:
    answers = [
        *range(30),
        "\\sum_n n",
        "2=5",
        "There is no box in this solution, only one number, 5, and words.",
    ]
    task = MathTask(MathConfig(path=write(tmp_path, answers)), TaskContext(seed=0))
    (summary,) = task.data_summary()
    assert (summary.rows, sum(summary.kept.values())) == (33, 30)
    (reason,) = [text for text, count in summary.dropped.items() if count == 3]
    assert reason.startswith(f"unreadable, first {tmp_path}/x.jsonl:31: the answer '\\\\sum_n n' cannot be read")
    assert "cannot read \\sum" in str(summary)


def test_or_it_is_an_error_that_names_the_row(tmp_path: Path) -> None:
    path = write(tmp_path, [1, 2, "\\frac{1}{0}"])
    with pytest.raises(RecipeError, match=r"x\.jsonl:3: the answer .* cannot be read: a division by zero; .*=drop"):
        MathTask(MathConfig(path=path, unreadable="error"), TaskContext(seed=0))
    with pytest.raises(ValueError, match="unreadable must be one of drop, error, got 'skip'"):
        MathConfig(unreadable="skip")


def test_a_file_without_a_readable_answer_says_why(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"0 kept .*3 unreadable, first .*x\.jsonl:1: .*no problems to train on"):
        infos(tmp_path, ["\\qqq{", "\\qqq{", "\\qqq{"])


def test_answers_in_two_spellings_do_not_contradict_each_other(tmp_path: Path) -> None:
    rows = [{"question": "One half of 1?", "answer": answer} for answer in ("1/2", "0.5", "\\frac{2}{4}")]
    rows += [{"question": "One half of 2?", "answer": answer} for answer in ("1", "2")]
    rows += [{"question": f"{i}?", "answer": i} for i in range(20)]
    (tmp_path / "x.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (summary,) = MathTask(MathConfig(path=str(tmp_path / "x.jsonl")), TaskContext(seed=0)).data_summary()
    assert summary.dropped == {"repeated": 2, "contradictory: one question, several answers": 2}


def test_the_command_line_shows_it_all(tmp_path: Path) -> None:
    answers = [f"Hence it is $\\boxed{{{i}/3}}$." for i in range(30)]
    write(tmp_path, [*answers, "\\boxed{\\sum_n n}"], problem="problem", solution="solution")
    (tmp_path / "known.yaml").write_text(RECIPE, encoding="utf-8")
    preview = command(tmp_path, "tasks", "preview", "math", "path=x.jsonl", "question=problem", "answer=solution")
    assert preview.returncode == 0, preview.stderr
    assert '"read_as": "a fraction"' in preview.stdout
    assert preview.stdout.count("reward of the reference: 1\n") == 3
    assert "31 rows read, 30 kept" in preview.stdout
    check = command(tmp_path, "recipes", "check", "known.yaml")
    assert check.returncode == 0, check.stderr
    said = " ".join(check.stdout.split())
    assert "31 rows read, 30 kept" in said
    assert "1 unreadable, first x.jsonl:31: the answer '\\\\sum_n n' cannot be read: cannot read \\sum" in said
    refused = command(tmp_path, "recipes", "check", "known.yaml", "task.unreadable=error")
    assert refused.returncode == 2
    assert "x.jsonl:31: the answer" in refused.stderr
    assert "Traceback" not in refused.stderr

"""Rows of each shape, prompts, where a program is in a completion, and what it earns."""

import json
from pathlib import Path
from typing import Any

import pytest

from reasonrl import Completion, FinishReason, Problem, RewardContext, Score, TaskContext
from reasonrl.errors import RecipeError
from reasonrl_code.compare import same_output
from reasonrl_code.config import CodeConfig, PassedTestsConfig
from reasonrl_code.dataset import CodeTask
from reasonrl_code.extraction import find_program, rest_of_block, rest_of_function
from reasonrl_code.rewards import PassedTestsReward
from reasonrl_code.tool import run_python

HUMANEVAL = {
    "task_id": "X/0",
    "entry_point": "largest_prime",
    "prompt": """from typing import List


def is_prime(n: int) -> bool:
    return n > 1 and all(n % d for d in range(2, n))


def largest_prime(numbers: List[int]) -> int:
    '''Return the largest prime.
    >>> largest_prime([4, 5])
    5
    '''
""",
    "canonical_solution": "    return max(n for n in numbers if is_prime(n))\n",
    "test": """METADATA = {'author': 'x'}


def check(candidate):
    '''Checks.'''
    assert True, 'works'
    numbers = [4, 5]
    assert candidate(numbers) == 5, 'first'
    for n in (7, 11):
        assert candidate([n, 4]) == n
    assert is_prime(candidate([2, 3]))
    assert candidate([2, 4]) == 2
""",
}
MBPP = {
    "text": "Write a function to build a pair and one to add it.",
    "code": """import math
class Pair:
    def __init__(self, a, b): self.a, self.b = a, b
def total(pair): return math.fsum([pair.a, pair.b])
""",
    "test_list": ["assert total(Pair(1, 2)) == 3", "assert math.isclose(total(Pair(0.1, 0.2)), 0.3)"],
    "test_setup_code": "",
}
APPS_CALLS = {
    "question": "Write add(a, b).",
    "input_output": json.dumps({"fn_name": "add", "inputs": [[1, 2], [[1], [2]]], "outputs": [3, [[1, 2]]]}),
    "solutions": json.dumps(["class Solution:\n    def add(self, a, b): return a + b"]),
    "starter_code": "class Solution:\n    def add(self, a, b):\n",
    "difficulty": "introductory",
}
APPS = {
    "question": "Print the sum of the numbers.",
    "input_output": {"inputs": ["1 2\n", ["3", "4 5"]], "outputs": ["3\n", ["12"]]},
    "solutions": ["import sys\nprint(sum(map(int, sys.stdin.read().split())))"],
}
ROWS = (HUMANEVAL, MBPP, APPS_CALLS, APPS)
GENEROUS = PassedTestsConfig(seconds=20.0)


@pytest.fixture(scope="module")
def reward() -> PassedTestsReward:
    return PassedTestsReward(GENEROUS, RewardContext())


def make(path: Path, *rows: object, **options: Any) -> list[Problem]:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    options = {"train_split": "test", "eval_split": "test", **options}
    task = CodeTask(CodeConfig(path=str(path), **options), TaskContext(seed=0))
    return [task.problem("eval", i) for i in range(task.size("eval"))]


def score(reward: PassedTestsReward, problem: Problem, text: str) -> Score:
    end = FinishReason.EOS
    return reward.score(problem, Completion(token_ids=(), logprobs=None, text=text, finish_reason=end))


@pytest.mark.parametrize("template", ["chat", "base"])
def test_the_known_solution_of_every_shape_is_paid(template: str, tmp_path: Path, reward: PassedTestsReward) -> None:
    problems = make(tmp_path / "rows.jsonl", *ROWS, template=template, difficulty="difficulty")
    assert [len(p.info["tests"]) for p in problems] == [4, 2, 2, 2]
    assert [p.info.get("difficulty") for p in problems] == [None, None, "introductory", None]
    for problem in problems:
        assert score(reward, problem, problem.info["solution"]).reason == "right"
        assert score(reward, problem, "I do not know.").value == 0.0


def test_the_fraction_of_tests_is_paid_or_all(tmp_path: Path, reward: PassedTestsReward) -> None:
    """Helpers that tests use are those of the prompt: a program's own ``is_prime`` decides nothing."""
    (problem,) = make(tmp_path / "rows.jsonl", HUMANEVAL)
    half = "```python\ndef is_prime(n): return True\ndef largest_prime(numbers): return 5 if 5 in numbers else 4\n```"
    found = score(reward, problem, half)
    assert (found.value, found.correct, found.reason) == (0.25, False, "wrong")
    strict = PassedTestsReward(PassedTestsConfig(seconds=20.0, partial_credit=False), RewardContext())
    assert score(strict, problem, half).value == 0.0


def test_a_base_model_may_ramble_after_its_function(tmp_path: Path, reward: PassedTestsReward) -> None:
    human, mbpp = make(tmp_path / "rows.jsonl", HUMANEVAL, MBPP, template="base")
    body = HUMANEVAL["canonical_solution"]
    for rest in ("print(largest_prime([1]))\n", "def unfinished(a:\n", "assert False\n", "class A:\n    def f(sel"):
        assert score(reward, human, f"{body}\n\n{rest}").value == 1.0
    assert score(reward, mbpp, f"{MBPP['code']}```\nThis works because ```x```").value == 1.0
    assert human.prompt == HUMANEVAL["prompt"]
    assert mbpp.assistant_prefix == "```python\n"


def test_rows_without_tests_are_counted_and_others_named(tmp_path: Path) -> None:
    bad: list[dict[str, Any]] = [
        {**MBPP, "test_list": []},
        {**MBPP, "test_list": ["assert 1 =="]},
        {**MBPP, "test_list": ["assert len('a') == 1"]},
        {**HUMANEVAL, "test": "def check(candidate):\n    assert True\n"},
        {**HUMANEVAL, "test": "x = 1\n"},
        {**APPS, "input_output": "no json"},
        {**APPS, "input_output": ""},
        {**APPS, "input_output": {"inputs": [], "outputs": []}},
    ]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in [*ROWS, ROWS[0], *bad]), encoding="utf-8")
    task = CodeTask(CodeConfig(path=str(path), eval_split="test", train_split="test"), TaskContext(seed=0))
    (summary,) = task.data_summary()
    assert (summary.kept["eval"], sum(summary.dropped.values()), summary.dropped["repeated"]) == (4, 9, 1)
    with pytest.raises(RecipeError, match=r"rows\.jsonl:1: no tests; expected the columns of HumanEval"):
        make(path, {"question": "x", "answer": "y"})
    with pytest.raises(RecipeError, match="column 'test_list' must be a list"):
        make(path, {**MBPP, "test_list": "assert f()"})
    with pytest.raises(RecipeError, match="no column 'input_output'"):
        make(path, MBPP, shape="apps")


@pytest.mark.parametrize(
    ("text", "program"),
    [
        ("x = 1", "x = 1"),
        ("Sure:\n```python\nx = 1\n```\nDone.", "x = 1\n"),
        ("```\nx = 1\n```", "x = 1\n"),
        ("```py\ndef f(): pass\n```\nUse it:\n```python\nprint(1)\n```", "def f(): pass\n"),
        ("<think>```python\nx = 0\n```</think>\n```python\nx = 1\n```", "x = 1\n"),
        ("```python\nx = 1", "x = 1"),
        ("```bash\nls\n```\n```python\nx = 1\n```", "x = 1\n"),
        ("~~~python\nx = 1\n~~~", "x = 1\n"),
        ("```python\nx = '''\n  ```not the end\n'''\n```", "x = '''\n  ```not the end\n'''\n"),
        ("", ""),
    ],
)
def test_where_the_program_is(text: str, program: str) -> None:
    assert find_program(text, "f") == program


def test_where_a_continuation_ends() -> None:
    assert rest_of_block("x = 1\n```\nmore") == "x = 1\n"
    kept = "    return 1\n\ndef g():\n    pass"
    assert rest_of_function(f"{kept}\nprint(g())\ndef h(): pass") == kept


@pytest.mark.parametrize(
    ("expected", "got", "same"),
    [
        ("5\n", "5", True), ("1 2\n3\n", "1  2 \n\n3", True), ("5", "6", False), ("5", "5 6", False), ("5", "", False),
        ("0.5", "0.50000001", True), ("0.5", ".5", True), ("0.5", "0.51", False), ("2", "2.0", False),
        ("2.0", "2", True), ("1e-3", "0.001", True), ("YES", "yes", False), ("1.5", "nan", False),
        ("1.5", "1" * 500, False),
        ("", " \n", True),
    ],
)  # fmt: skip
def test_output_is_compared_by_words(expected: str, got: str, same: bool) -> None:
    assert same_output(expected, got) is same


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (CodeConfig, {"shape": "humanevil"}, "shape must be one of"),
        (CodeConfig, {"template": "chatt"}, "template must be one of"),
        (CodeConfig, {"max_tests": 0}, "max_tests must be >= 1"),
        (CodeConfig, {"eval_path": "x.jsonl", "eval_split": "test"}, "eval_path must be null"),
        (PassedTestsConfig, {"seconds": 0.0}, r"seconds must be in \[0.5, 600\]"),
        (PassedTestsConfig, {"program_mb": 1}, "program_mb must be >= 64"),
        (PassedTestsConfig, {"processes": 0}, "processes must be in"),
        (PassedTestsConfig, {"sandbox": "docker"}, "sandbox must be one of"),
    ],
)
def test_a_wrong_option_is_refused_by_name(kind: type, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        kind(**options)


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("print(6 * 7)", "42"),
        ("x = 1", "(no output)"),
        ("print('a')\n1 / 0", "ZeroDivisionError: division by zero"),
        ("raise SystemExit(3)", "exit status 3"),
        ("print('x' * 10**5)", "stopped: too much output"),
        ("print('x' * 5000)", "[1001 characters of output left out]"),
        ("def f(", "SyntaxError"),
        ("import os; os.abort()", "ended by a signal"),
    ],
)
def test_the_tool_says_what_happened(code: str, said: str) -> None:
    assert said in run_python(code)


def test_a_launcher_that_was_killed_is_replaced(tmp_path: Path) -> None:
    own = PassedTestsReward(GENEROUS, RewardContext())
    (problem,) = make(tmp_path / "rows.jsonl", APPS)
    own._launcher._process.kill()
    own._launcher._process.wait()
    assert score(own, problem, problem.info["solution"]).value == 1.0

"""Parts that need no dataset: where an answer stands, what a scorer may see, metadata there and back."""

import json
import subprocess
import sys
from fractions import Fraction

import pytest

from reasonrl_reasoning_gym.extraction import MAX_CHARS, find_answer, wrap
from reasonrl_reasoning_gym.guard import GUARDED, MAX_GUARDED_CHARS, is_harmless
from reasonrl_reasoning_gym.plain import NotPlainError, from_plain, to_plain

TORCH_FREE = """
import sys
import reasonrl_reasoning_gym.plugin as plugin
list(plugin.reasonrl_tasks()), list(plugin.reasonrl_rewards()), list(plugin.reasonrl_recipes())
print(sorted({"torch", "transformers", "reasoning_gym", "sympy", "numpy"} & set(sys.modules)))
"""


def test_listing_the_plugin_imports_nothing_heavy() -> None:
    done = subprocess.run([sys.executable, "-c", TORCH_FREE], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize(
    ("text", "answer", "reason"),
    [
        ("<answer>7</answer>", "7", ""),
        ("<think>a <answer>1</answer></think>\n<answer> 7\n8 </answer> bye", "7\n8", ""),
        ("<answer>7</answer></answer>", "7", ""),
        ("7", None, "no_answer"),
        ("<answer>7", None, "no_answer"),
        ("<answer> </answer>", None, "no_answer"),
        ("<answer>7</answer> or <answer>8</answer>", None, "several_answers"),
        ("<answer>7</answer><answer>", None, "several_answers"),
        ("<answer>7</answer></think>", None, "no_answer"),
        (f"<answer>{'7' * (MAX_CHARS + 1)}</answer>", None, "too_long"),
    ],
)
def test_exactly_one_answer_counts(text: str, answer: str | None, reason: str) -> None:
    found = find_answer(text, "answer")
    assert (found.answer, found.reason) == (answer, reason)


def test_without_a_tag_all_that_follows_the_reasoning_is_the_answer() -> None:
    assert find_answer("<think>x</think>\n 7 ", "").answer == "7"
    assert wrap("7", "") == "7"
    assert find_answer(wrap("7", "solution"), "solution").answer == "7"


HOSTILE = (
    "__import__('os').system('true')",
    "().__class__.__bases__[0].__subclasses__()",
    "open('/etc/passwd').read()",
    "exec('1')",
    "[x for x in ().__class__.__mro__]",
    "lambda: 0",
    "x.func",
    "x . diff(x)",
    "9**9**9",
    "9 ** (9 * 9 ** 9)",
    "9^99999999",
    "(" * 60 + ")" * 60,
    "1" * (MAX_GUARDED_CHARS + 1),
    "preview(x)",
    "f'{1}'",
    "chr(95)",
)


@pytest.mark.parametrize("dataset", sorted(GUARDED))
@pytest.mark.parametrize("text", HOSTILE)
def test_a_scorer_that_evaluates_sees_no_code(dataset: str, text: str) -> None:
    assert not is_harmless(dataset, text)


@pytest.mark.parametrize(
    ("dataset", "text"),
    [
        ("countdown", "(3 + 4.5) * 12 / 6 - 1"),
        ("puzzle24", "8 * 3 * (5 - 4)"),
        ("binary_matrix", "[[0, 1], [1, 2]]"),
        ("spiral_matrix", "1 2 3 6"),
        ("n_queens", "Q _ _\n_ _ Q"),
        ("string_insertion", "['A', 'B']"),
        ("polynomial_multiplication", "12*x**3*y**2*z**4 - 3*x^2 + 1"),
        ("simple_integration", "3*x**2/2 + log(x) + exp(2*x) + C"),
        ("intermediate_integration", "-sqrt(2)*cos(3*x)/(4*pi) + C"),
        ("chain_sum", "__import__('os')"),
    ],
)
def test_what_these_tasks_are_about_passes(dataset: str, text: str) -> None:
    assert is_harmless(dataset, text)


def test_metadata_survives_json() -> None:
    value = {
        "a": (1, 2.5, None, [True, "x"]),
        "b": {3, 1, 2},
        "c": {(0, 1): {"$": 1}, 2: frozenset({"z"})},
        "d": [],
    }
    assert from_plain(json.loads(json.dumps(to_plain(value)))) == value


def test_what_cannot_be_written_down_is_refused() -> None:
    with pytest.raises(NotPlainError, match="Fraction"):
        to_plain({"a": [Fraction(1, 2)]})

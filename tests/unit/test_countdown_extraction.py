"""Where an answer is looked for, and that hedging or echoing the prompt earns nothing."""

import time

import pytest

from reasonrl_countdown import extract_answer
from reasonrl_countdown.extraction import find_answer


@pytest.mark.parametrize(
    ("completion", "answer"),
    [
        ("3+4 is 7\n</think>\n<answer>3+4</answer>", "3+4"),
        ("<answer> 3+4\n</answer> Bye.", "3+4"),  # no </think> at all
        ("</think><answer></answer>", ""),
        ("<answer>9</answer></think><answer>3+4</answer>", "3+4"),  # the first one was only thought
        ("</think><answer>9</answer></think><answer>3+4</answer>", "3+4"),
        (
            "<think>a</think><answer>3+4</answer>\n<think>or <answer>4+3</answer>",
            "3+4",
        ),  # thinks again, unfinished
        ("</think><answer>3+4</answer></answer></answer>", "3+4"),
        ("</think></answer><answer>3+4</answer>", "3+4"),
        ("</think><answer>3 < 4</answer>", "3 < 4"),
    ],
)
def test_the_one_answer_after_thinking_is_found(completion: str, answer: str) -> None:
    assert extract_answer(completion) == answer


@pytest.mark.parametrize(
    ("completion", "reason"),
    [
        ("", "no_answer"),
        ("3+4", "no_answer"),
        ("</think><answer>3+4", "no_answer"),
        ("</think>3+4</answer>", "no_answer"),
        ("</think></answer>3+4<answer>", "no_answer"),
        ("<answer>3+4</answer></think>", "no_answer"),
        ("<answer>3+4</think></answer>", "no_answer"),
        ("<think><answer>3+4</answer>", "no_answer"),
        ("</think>< answer>3+4</answer>", "no_answer"),
        ("</think><ANSWER>3+4</ANSWER>", "no_answer"),
        ("</think><answer>3+4</answer><answer>3*4</answer>", "several_answers"),
        ("</think><answer>3+4</answer><answer>3+4</answer>", "several_answers"),
        ("</think><answer>3+4</answer> or <answer>3*", "several_answers"),
        ("</think><answer><answer>3+4</answer></answer>", "several_answers"),
    ],
)
def test_no_answer_says_why(completion: str, reason: str) -> None:
    assert find_answer(completion).reason == reason
    assert extract_answer(completion) is None


@pytest.mark.parametrize("part", ["<answer>", "</answer>", "</think>", "<think>", "<answer", "<<<<<<<a"])
def test_extraction_is_linear(part: str) -> None:
    """1 MB of one piece takes milliseconds; a backtracking pattern needs hours for it."""
    text = part * (1_000_000 // len(part))
    start = time.process_time()
    extract_answer(text)
    extract_answer(text + "<answer>3+4</answer>")
    assert time.process_time() - start < 0.5


def test_5000_unclosed_tags_are_no_answer() -> None:
    assert extract_answer("<answer>" * 5000) is None
    assert extract_answer("<answer>" * 5000 + "3+4</answer>") is None

"""Rewards for answers in a box and for the shape of a completion: the two of DeepSeek-R1-Zero (arXiv:2501.12948)."""

import importlib
from functools import lru_cache
from typing import Any

from reasonrl import Completion, NoConfig, Problem, RewardContext, Score
from reasonrl_math.templates import OPENING

CLOSING = "</think>"
_BOX = "\\boxed{"
_MAX_CHARS = 500
_LIMIT_S = 3
"""For parsing or comparing one expression. A worker is killed only when this fails to stop it."""


class BoxedReward:
    """1.0 if the one ``\\boxed{...}`` after the reasoning equals the known answer, else 0.0.

    math-verify compares values, not texts: ``1/2``, ``\\frac{1}{2}`` and ``0.5`` are one. Different answers in several
    boxes are no answer. Made for ``isolation="process"``: sympy may take for ever over a short text.

    Raises (the completion stays unscored): ValueError when the known answer cannot be read.
    """

    def __init__(self, config: NoConfig, context: RewardContext) -> None:
        del config, context
        importlib.import_module("math_verify")  # seconds; now, not on the clock of the first completion

    def score(self, problem: Problem, completion: Completion) -> Score:
        """Judge the completion's text against ``problem.info["answer"]``."""
        answer, reason = find_boxed(completion.text)
        if answer is None:
            return Score(value=0.0, correct=False, reason=reason)
        is_right = is_equal(str(problem.info["answer"]), answer)
        return Score(
            value=float(is_right), correct=is_right, answer=answer, reason="right" if is_right else "wrong"
        )


class ThinkFormatReward:
    """1.0 for ``<think>``, reasoning, ``</think>`` and something after it, each tag once; else 0.0.

    A prompt that ends with ``<think>``, by the task's prefix or the model's chat template, counts for the first tag.
    """

    def __init__(self, config: NoConfig, context: RewardContext) -> None:
        del config, context

    def score(self, problem: Problem, completion: Completion) -> Score:
        """Judge the shape alone. ``correct`` is left to other rewards."""
        del problem
        opened = completion.prompt_text.rstrip().endswith(OPENING)
        reason = _format_fault(completion.text, opened=opened)
        return Score(value=0.0 if reason else 1.0, reason=reason)


def find_boxed(completion: str) -> tuple[str | None, str]:
    """The content of the boxes after the reasoning if they all hold the same text; else None and why."""
    tail = completion[completion.rfind(CLOSING) + len(CLOSING) :] if CLOSING in completion else completion
    found = set(_boxes(tail))
    if len(found) != 1:
        return None, "several_answers" if found else "no_answer"
    answer = found.pop()
    if not answer or len(answer) > _MAX_CHARS:
        return None, "too_long" if answer else "no_answer"
    return answer, ""


def _boxes(text: str) -> list[str]:
    """What stands in each closed box; braces inside must be balanced."""
    found, at = [], text.find(_BOX)
    while at >= 0:
        start = at + len(_BOX)
        end = _closing_brace(text, start)
        if end < 0:
            break
        found.append(text[start:end].strip())
        at = text.find(_BOX, end)
    return found


def _closing_brace(text: str, start: int) -> int:
    depth = 1
    for position in range(start, len(text)):
        depth += (text[position] == "{") - (text[position] == "}")
        if depth == 0:
            return position
    return -1


def is_equal(known: str, answer: str) -> bool:
    """Whether two expressions are the same, as math-verify sees it. An unreadable ``answer`` is not.

    Raises: ValueError when ``known`` cannot be read.
    """
    from math_verify import verify

    if known.strip() == answer.strip():
        return True
    gold = _parse(known)
    if not gold:
        raise ValueError(f"the known answer {known[:80]!r} is nothing that math-verify can read")
    return bool(verify(gold, _parse(answer), timeout_seconds=_LIMIT_S))


@lru_cache(maxsize=64)
def _parse(text: str) -> Any:
    from math_verify import LatexExtractionConfig, parse

    # As LaTeX only: the other way of math-verify hands text to sympy's parse_expr, which evaluates it.
    return parse(
        f"${text}$", [LatexExtractionConfig()], parsing_timeout=_LIMIT_S, fallback_mode="no_fallback"
    )


def _format_fault(text: str, *, opened: bool) -> str:
    """What is wrong with the shape; empty if nothing is."""
    body = text if opened else text.lstrip()
    if not opened and not body.startswith(OPENING):
        return "no_opening"
    thought, closing, rest = body.removeprefix("" if opened else OPENING).partition(CLOSING)
    if not closing:
        return "no_closing"
    if OPENING in thought or OPENING in rest or CLOSING in rest:
        return "several_tags"
    if not thought.strip():
        return "no_reasoning"
    return "" if rest.strip() else "no_answer"

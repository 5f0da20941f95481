"""Multiply two whole numbers, TinyZero's second task, and its reward."""

import random
import re

from reasonrl import Completion, Problem, RewardContext, Score, Split, TaskContext
from reasonrl_math.config import MultiplicationConfig, MultiplicationRewardConfig
from reasonrl_math.splits import split_of
from reasonrl_math.templates import lead, render

_MAX_TRIES = 10_000
_MAX_DIGITS = 20
_RESULT = re.compile(rf"[ \t]*([0-9]{{1,{_MAX_DIGITS}}})(?![0-9]|\.[0-9])")
_THINK_CLOSE = "</think>"
_FORM = "give the product alone, once, as <answer> ... </answer>"


class MultiplicationTask:
    """``info`` is ``{"factors": [a, b], "product": n, "form": "tag" | "equation"}``.

    A pair of factors is in one split only, in either order. Endless; problems of a split may repeat.
    """

    def __init__(self, config: MultiplicationConfig, context: TaskContext) -> None:
        self._config = config
        self._seed = context.seed

    def size(self, split: Split) -> int | None:
        """None: endless."""
        return None

    def problem(self, split: Split, index: int) -> Problem:
        """The problem at ``index``.

        Raises:
            ValueError: when the range of factors has no problem of the split.
            IndexError: below 0.
        """
        if index < 0:
            raise IndexError(f"multiplication: problem index must be >= 0, got {index}")
        left, right = self._factors(split, index)
        is_compact = self._config.template == "compact"
        if is_compact:
            # The line that countdown-base knows; a target of 0 tells it nothing.
            prompt, prefix = f"Numbers: {left} {right}. Target: 0.\n", "<think>\n"
        else:
            rendered, prefix = render(self._config.template, f"What is {left} times {right}?", _FORM)
            prompt = rendered  # type: ignore[assignment]
        info = {
            "factors": [left, right],
            "product": left * right,
            "form": "equation" if is_compact else "tag",
        }
        return Problem(id=f"multiplication/{split}/{index}", prompt=prompt, assistant_prefix=prefix, info=info)

    def reference(self, problem: Problem) -> str:
        """The product by the distributive law, one digit at a time."""
        (left, right), product = problem.info["factors"], problem.info["product"]
        if problem.info["form"] == "equation":
            return f"{left} * {right} = {product}\n"
        steps = _steps(left, right)
        return f"{lead(problem.prompt, problem.assistant_prefix, steps)}<answer>{product}</answer>"

    def demonstration(self, problem: Problem, rng: random.Random) -> str:
        """The same."""
        del rng
        return self.reference(problem)

    def _factors(self, split: Split, index: int) -> tuple[int, int]:
        rng = random.Random(f"multiplication/{self._seed}/{split}/{index}")
        low, high = self._config.min_factor, self._config.max_factor
        for _ in range(_MAX_TRIES):
            left, right = rng.randint(low, high), rng.randint(low, high)
            if split_of(f"multiplication/{min(left, right)}*{max(left, right)}") == split:
                return left, right
        raise ValueError(f"multiplication: no {split} problem with factors from {low} to {high}; widen the range")


def _steps(left: int, right: int) -> str:
    parts, total, lines = [int(d) * 10**i for i, d in enumerate(reversed(str(right))) if d != "0"], 0, []
    for part in parts:
        total += left * part
        lines.append(f"{left} * {part} = {left * part}, together {total}")
    return "\n".join(lines) or f"{left} * 0 = 0"


class MultiplicationReward:
    """1.0 for the product, ``format_value`` for another whole number, 0.0 without a number: TinyZero's scale.

    By the problem's form the number stands alone in exactly one ``<answer>`` after the reasoning, or after the last
    ``=`` of the completion.
    """

    def __init__(self, config: MultiplicationRewardConfig, context: RewardContext) -> None:
        del context
        self._format_value = config.format_value

    def score(self, problem: Problem, completion: Completion) -> Score:
        """Judge the completion's text."""
        text = completion.text
        found = _last_result(text) if problem.info["form"] == "equation" else _tagged(text)
        if found is None:
            return Score(value=0.0, correct=False, reason="no_number")
        is_right = int(found) == problem.info["product"]
        return Score(
            value=1.0 if is_right else self._format_value,
            correct=is_right,
            answer=str(int(found)),
            reason="right" if is_right else "wrong",
        )


def _last_result(text: str) -> str | None:
    """The whole number that begins right after the last ``=``."""
    found = _RESULT.match(text, text.rfind("=") + 1) if "=" in text else None
    return found[1] if found else None


def _tagged(text: str) -> str | None:
    tail = text[text.rfind(_THINK_CLOSE) + len(_THINK_CLOSE) :] if _THINK_CLOSE in text else text
    if tail.count("<answer>") != 1:
        return None
    answer, closing, _ = tail.partition("<answer>")[2].partition("</answer>")
    return _whole(answer.strip().replace(",", "")) if closing else None


def _whole(text: str) -> str | None:
    """ASCII digits only, few enough to be converted at once."""
    return text if text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS else None

"""Rewards for answers in a box and for the shape of a completion: the two of DeepSeek-R1-Zero (arXiv:2501.12948)."""

from functools import lru_cache

from reasonrl import Completion, NoConfig, Problem, RewardContext, Score
from reasonrl.contracts.clock import TooSlowError, limited_to
from reasonrl_math.answers import Answer, UnreadableError, agree, last_box, read, read_known
from reasonrl_math.templates import OPENING

CLOSING = "</think>"
_MAX_CHARS = 500
_LIMIT_S = 3.0
"""For comparing one answer. A worker is killed only when this fails to stop it."""


class BoxedReward:
    """1.0 if the last ``\\boxed{...}`` after the reasoning equals the known answer, else 0.0.

    Values are compared, not texts, and exactly: ``1/2``, ``\\frac{1}{2}`` and ``0.5`` are one, 0.333 is not 1/3. An
    answer that takes over 3 s of processor time to compare, or on which the comparison fails, is wrong. Made for
    ``isolation="process"``, should that limit fail.

    Raises (the completion stays unscored): ValueError when the known answer cannot be read.
    """

    def __init__(self, config: NoConfig, context: RewardContext) -> None:
        del config, context

    def score(self, problem: Problem, completion: Completion) -> Score:
        """Judge the completion's text against ``problem.info["answer"]``."""
        answer, reason = find_boxed(completion.text)
        if answer is None:
            return Score(value=0.0, correct=False, reason=reason)
        try:
            with limited_to(_LIMIT_S):
                is_right = is_equal(str(problem.info["answer"]), answer)
        except TooSlowError:
            return Score(value=0.0, correct=False, answer=answer, reason="too_slow")
        except Exception as err:  # noqa: BLE001 - RecursionError, MemoryError: it is the answer that costs too much
            _read_known(str(problem.info["answer"]))  # raises if the answer is not to blame
            return Score(value=0.0, correct=False, answer=answer, reason=f"unreadable: {type(err).__name__}")
        return Score(value=float(is_right), correct=is_right, answer=answer, reason="right" if is_right else "wrong")


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
    """What the last closed box after the reasoning holds; else None and why."""
    answer = last_box(completion[completion.rfind(CLOSING) + len(CLOSING) :] if CLOSING in completion else completion)
    if not answer:
        return None, "no_answer"
    return (answer, "") if len(answer) <= _MAX_CHARS else (None, "too_long")


def is_equal(known: str, answer: str) -> bool:
    """Whether two answers are the same. An unreadable ``answer`` is not.

    Raises:
        ValueError: when ``known`` is.
    """
    if known.strip() == answer.strip():
        return True
    expected = _read_known(known)
    try:
        return agree(expected, read(answer))
    except UnreadableError:
        return False


@lru_cache(maxsize=256)
def _read_known(text: str) -> Answer:
    try:
        return read_known(text)
    except UnreadableError as err:
        raise ValueError(f"the known answer {text[:80]!r} cannot be read: {err}") from err


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

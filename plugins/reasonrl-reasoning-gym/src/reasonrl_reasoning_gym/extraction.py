"""Finding the answer in a completion, in linear time."""

from dataclasses import dataclass

MAX_CHARS = 20_000
"""A longer answer is none: scorers may take long over it."""
_THINK_CLOSE = "</think>"


@dataclass(frozen=True, slots=True)
class Extraction:
    """``answer`` is None unless ``reason`` is empty: ``no_answer``, ``several_answers`` or ``too_long``."""

    answer: str | None
    reason: str = ""


def find_answer(completion: str, tag: str) -> Extraction:
    """The one answer after the reasoning.

    Only what follows the last ``</think>`` counts. With a tag, exactly one ``<tag>`` must stand there, closed by the
    next ``</tag>``: a completion that gives several answers gives none. Without a tag all of it is the answer.
    """
    tail = completion[_after(completion, _THINK_CLOSE) :]
    if not tag:
        return _bounded(tail)
    opening, closing = f"<{tag}>", f"</{tag}>"
    start = tail.find(opening)
    if start < 0:
        return Extraction(None, "no_answer")
    start += len(opening)
    if tail.find(opening, start) >= 0:
        return Extraction(None, "several_answers")
    end = tail.find(closing, start)
    return Extraction(None, "no_answer") if end < 0 else _bounded(tail[start:end])


def wrap(answer: str, tag: str) -> str:
    """A completion that gives this answer and nothing else."""
    return f"<{tag}>{answer}</{tag}>" if tag else answer


def _bounded(text: str) -> Extraction:
    answer = text.strip()
    if not answer:
        return Extraction(None, "no_answer")
    return Extraction(None, "too_long") if len(answer) > MAX_CHARS else Extraction(answer)


def _after(text: str, part: str) -> int:
    last = text.rfind(part)
    return 0 if last < 0 else last + len(part)

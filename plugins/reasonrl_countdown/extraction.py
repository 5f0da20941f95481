"""Find the answer in a completion in linear time, without regular expressions."""

from dataclasses import dataclass

_BLANK = " \t\r\n"
_OPEN = "<answer>"
_CLOSE = "</answer>"
_THINK_OPEN = "<think>"
_THINK_CLOSE = "</think>"


@dataclass(frozen=True, slots=True)
class Extraction:
    """``answer`` is None unless ``reason`` is ``ok``; otherwise ``no_answer`` or ``several_answers``."""

    answer: str | None
    reason: str


def find_answer(completion: str) -> Extraction:
    """Extract the only answer of a completion.

    Only the text after the last ``</think>`` counts (all of it when there is none: a model need not close
    what the prompt opened), up to a ``<think>`` that opens again there. In it must stand exactly one
    ``<answer>``, closed by the next ``</answer>``; surplus closing tags are ignored. Two opening tags,
    nested or one after the other, closed or not, are no answer at all: a completion that hedges earns
    nothing.
    """
    tail = completion[_after_thinking(completion) :]
    tail = tail[: _position(tail, _THINK_OPEN)]
    start = tail.find(_OPEN)
    if start < 0:
        return Extraction(None, "no_answer")
    start += len(_OPEN)
    if tail.find(_OPEN, start) >= 0:
        return Extraction(None, "several_answers")
    end = tail.find(_CLOSE, start)
    if end < 0:
        return Extraction(None, "no_answer")
    return Extraction(tail[start:end].strip(_BLANK), "ok")


def extract_answer(completion: str) -> str | None:
    """Return the stripped text inside the answer tags; None without exactly one answer.

    See ``find_answer``. Give it the completion alone: a prompt may hold an example answer.
    """
    return find_answer(completion).answer


def _after_thinking(text: str) -> int:
    last = text.rfind(_THINK_CLOSE)
    return 0 if last < 0 else last + len(_THINK_CLOSE)


def _position(text: str, part: str) -> int:
    found = text.find(part)
    return len(text) if found < 0 else found

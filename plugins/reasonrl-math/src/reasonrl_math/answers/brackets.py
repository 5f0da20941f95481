"""Where brackets open and close, and what stands outside of them."""

import re

from reasonrl_math.answers.nodes import UnreadableError

_BRACKET = re.compile(
    r"\\begin\s*\{\w+\*?\}(?:\{[^{}]*\})?|\\end\s*\{\w+\*?\}|\\[{}]|\\langle|\\rangle|\\.|[()\[\]{}]",
    re.DOTALL,
)
_THOUSANDS = re.compile(r"(?<![\d.,])[1-9]\d{0,2}(?:,\d{3})+(?!\d)(?!,\d)", re.ASCII)

MAX_DEPTH = 40

Span = tuple[int, int, int, int]
"""Start, inner start, inner end and end of a pair."""


def pairs(text: str) -> list[Span]:
    """Every pair of brackets in the order of the text. Any bracket closes any other: ``(1, 2]`` is an interval.

    Raises:
        UnreadableError: for a bracket without its other half.
    """
    found, open_at = [], []
    for match in _BRACKET.finditer(text):
        mark = match[0]
        if mark in ("(", "[", "{", "\\{", "\\langle") or mark.startswith("\\begin"):
            open_at.append(match)
            if len(open_at) > MAX_DEPTH:
                raise UnreadableError("it is nested too deeply")
        elif mark in (")", "]", "}", "\\}", "\\rangle") or mark.startswith("\\end"):
            if not open_at:
                raise UnreadableError(f"{mark!r} closes nothing")
            opening = open_at.pop()
            found.append((opening.start(), opening.end(), match.start(), match.end()))
    if open_at:
        raise UnreadableError(f"{open_at[-1][0]!r} is not closed")
    return sorted(found)


def split(text: str, pattern: re.Pattern[str]) -> tuple[list[str], list[str]]:
    """The stripped pieces between matches outside of all brackets, and what was matched."""
    if not pattern.search(text):
        return [text.strip()], []
    spans = pairs(text)
    pieces, marks, at = [], [], 0
    for match in pattern.finditer(text):
        if not any(start <= match.start() < end for start, _, _, end in spans):
            pieces.append(text[at : match.start()].strip())
            marks.append(match[0])
            at = match.end()
    return [*pieces, text[at:].strip()], marks


def without_thousands(text: str) -> str:
    """Without the commas of ``1,234``. In parentheses, brackets and sets a comma separates: ``(1,234)`` is a pair."""
    if not _THOUSANDS.search(text):
        return text
    lists = [(start, end) for opening, start, end, _ in pairs(text) if text[opening:start] != "{"]

    def joined(match: re.Match[str]) -> str:
        is_listed = any(start <= match.start() < end for start, end in lists)
        return match[0] if is_listed else match[0].replace(",", "")

    return _THOUSANDS.sub(joined, text)

"""Escape untrusted text, and suggest the name that a mistyped one means."""

import difflib
import re
import unicodedata
from collections.abc import Iterable, Sequence
from itertools import islice

# Terminals disagree about the width of these; a line wider than computed breaks the live view.
_UNSURE = re.compile(r"[\ufe00-\ufe0f\U0001f1e6-\U0001f1ff\U0001f3fb-\U0001f3ff\U000e0100-\U000e01ef]")


def escape(text: str, *, keep: str = "") -> str:
    """Escape every character of ``text`` that is neither printable nor in ``keep``."""
    return "".join(c if c.isprintable() or c in keep else _escape_char(c) for c in text)


def clip(text: str, limit: int) -> str:
    """``text``, its middle left out if it is longer than ``limit``, with the number of characters."""
    if len(text) <= limit:
        return text
    gap = f" ... ({len(text):,} characters) ... "
    kept = max(0, limit - len(gap))
    return text[: kept - kept // 3] + gap + text[len(text) - kept // 3 :]


def list_some(names: Iterable[object], most: int = 20) -> str:
    """The first ``most`` names of any number and length, for a message, with the count of the others."""
    rest = iter(names)
    shown = [clip(str(name), 60) for name in islice(rest, most)]
    others = sum(1 for _ in rest)
    return ", ".join([*shown, *([f"{others:,} more"] if others else [])])


def sanitize(text: str, *, ascii_only: bool = False) -> str:
    """Escape every character of ``text`` that could move the cursor, change colors or reorder a line.

    Line breaks stay; a tab becomes two spaces.
    """
    if text.isascii() and text.replace("\n", "").isprintable():
        return text
    shown, marks = [], 0
    for char in text:
        marks = marks + 1 if unicodedata.category(char) in ("Mn", "Me") else 0
        if char == "\t":
            shown.append("  ")
        elif char != "\n" and (marks > 2 or _is_risky(char) or (ascii_only and not char.isascii())):
            shown.append(_escape_char(char))
        else:
            shown.append(char)
    return "".join(shown)


def suggest(name: str, names: Sequence[str]) -> str:
    """Return ``; did you mean 'nearest'?`` for the end of a message; empty if no name is similar."""
    close = difflib.get_close_matches(name, names, n=5, cutoff=0.6)
    close.sort(key=lambda other: sorted(other) != sorted(name))  # letters in another order are the likeliest slip
    return f"; did you mean '{close[0]}'?" if close else ""


def _escape_char(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")


def _is_risky(char: str) -> bool:
    """Whether it is a control, format, surrogate, private or unassigned character, or of ambiguous width."""
    category = unicodedata.category(char)
    return category.startswith("C") or category in ("Zl", "Zp") or _UNSURE.match(char) is not None

"""Other people's text, made safe to show, and the nearest name to a mistyped one."""

import difflib
import re
import unicodedata
from collections.abc import Sequence

# Terminals disagree about the width of these, and a line that is wider than thought tears the picture.
_UNSURE = re.compile(r"[\ufe00-\ufe0f\U0001f1e6-\U0001f1ff\U0001f3fb-\U0001f3ff\U000e0100-\U000e01ef]")


def escape(text: str, *, keep: str = "") -> str:
    """``text`` with everything that is not printable, and not in ``keep``, written as an escape."""
    return "".join(c if c.isprintable() or c in keep else _escaped(c) for c in text)


def sanitize(text: str, *, ascii_only: bool = False) -> str:
    """``text`` for a terminal: what could move a cursor, recolor or reorder lines is written as an escape.

    Line breaks stay; a tab becomes two spaces.
    """
    shown, marks = [], 0
    for char in text:
        marks = marks + 1 if unicodedata.category(char) in ("Mn", "Me") else 0
        if char == "\t":
            shown.append("  ")
        elif char != "\n" and (marks > 2 or _is_risky(char) or (ascii_only and not char.isascii())):
            shown.append(_escaped(char))
        else:
            shown.append(char)
    return "".join(shown)


def nearest(name: str, names: Sequence[str]) -> str | None:
    """The most similar name, or None if none is similar."""
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    return close[0] if close else None


def _escaped(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")


def _is_risky(char: str) -> bool:
    """Control, format, surrogate, private and unassigned characters, foreign line ends, unsure widths."""
    category = unicodedata.category(char)
    return category.startswith("C") or category in ("Zl", "Zp") or _UNSURE.match(char) is not None

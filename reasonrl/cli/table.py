"""Plain text that fits the terminal: tables and wrapped lines."""

import shutil
import sys
import textwrap
from collections.abc import Iterator, Sequence
from typing import TextIO

from reasonrl.text import clip, sanitize

NARROWEST = 40
MIN_ROOM = 20
"""Minimum width of a table's last column; if there is less room, it goes below the others."""


MAX_CELL = 100
"""Characters of a cell, but for the last column: names may be of any length."""


def terminal_width() -> int:
    """Return the columns of the terminal; 80 if there is none."""
    return max(NARROWEST, shutil.get_terminal_size().columns)


def table(header: Sequence[str], rows: Sequence[Sequence[str]], *, width: int | None = None) -> Iterator[str]:
    """Format a table; the last column is wrapped to the remaining width."""
    width = width or terminal_width()
    cells = [header, *([*(clip(sanitize(cell), MAX_CELL) for cell in row[:-1]), sanitize(row[-1])] for row in rows)]
    sizes = [max(len(row[i]) for row in cells) for i in range(len(header) - 1)]
    beside = sum(sizes) + 2 * len(sizes)
    is_beside = width - beside >= MIN_ROOM
    indent = " " * (beside if is_beside else 4)
    for row in cells:
        lead = "".join(cell.ljust(size + 2) for cell, size in zip(row, sizes, strict=False))
        if not is_beside:
            yield lead.rstrip()
            lead = indent
        yield from wrap(row[-1], lead=lead, indent=indent, width=width).rstrip().split("\n")


def entries(rows: Sequence[tuple[str, str]], *, width: int) -> Iterator[str]:
    """Format names and descriptions in two columns; a long name gets its own line."""
    size = min(max((len(name) for name, _ in rows), default=0), width // 3)
    indent = " " * (size + 2)
    for name, text in rows:
        is_long = len(name) > size
        if is_long:
            yield name
        lead = indent if is_long else f"{name:<{size}}  "
        yield wrap(text, lead=lead, indent=indent, width=width).rstrip()


def wrap(text: str, *, indent: str = "", lead: str | None = None, width: int | None = None) -> str:
    """Wrap ``text`` to ``width`` columns, each line after ``indent``, the first after ``lead``.

    Breaks at spaces only, so a long path stays in one piece.
    """
    lead = indent if lead is None else lead
    lines = textwrap.wrap(
        sanitize(text),
        width or terminal_width(),
        initial_indent=lead,
        subsequent_indent=indent,
        break_on_hyphens=False,
        break_long_words=False,
    )
    return "\n".join(lines) or lead


def for_terminal(text: str, margin: str = "", *, stream: TextIO | None = None) -> str:
    """Put ``margin`` before each line of ``text``; in a terminal long lines are wrapped at words."""
    text = sanitize(text)
    width = terminal_width() if (stream or sys.stdout).isatty() else sys.maxsize
    return "\n".join(_fold(line, margin, width) for line in text.split("\n"))


def _fold(line: str, margin: str, width: int) -> str:
    if len(margin + line) <= width:
        return (margin + line).rstrip() if not line else margin + line
    own = line[: len(line) - len(line.lstrip())]
    return wrap(line.lstrip(), lead=margin + own, indent=margin + own, width=width)

"""Plain text that fits the terminal: tables, and lines that are broken at words."""

import shutil
import sys
import textwrap
from collections.abc import Iterator, Sequence
from typing import TextIO

NARROWEST = 40
MIN_ROOM = 20
"""Columns that the last column of a table gets; with fewer it goes below the others."""


def terminal_width() -> int:
    """Columns of the terminal; 80 where there is none."""
    return max(NARROWEST, shutil.get_terminal_size().columns)


def table(header: Sequence[str], rows: Sequence[Sequence[str]], *, width: int | None = None) -> Iterator[str]:
    """The lines of a table; the last column is wrapped into what is left of the width."""
    width = width or terminal_width()
    cells = [header, *rows]
    sizes = [max(len(row[i]) for row in cells) for i in range(len(header) - 1)]
    beside = sum(sizes) + 2 * len(sizes)
    is_beside = width - beside >= MIN_ROOM
    indent = " " * (beside if is_beside else 4)
    for row in cells:
        lead = "".join(cell.ljust(size + 2) for cell, size in zip(row, sizes, strict=False))
        if not is_beside:
            yield lead.rstrip()
            lead = indent
        yield from wrapped(row[-1], lead=lead, indent=indent, width=width).rstrip().split("\n")


def entries(rows: Sequence[tuple[str, str]], *, width: int) -> Iterator[str]:
    """Names and what they mean, in two columns; a long name has a line of its own."""
    size = min(max((len(name) for name, _ in rows), default=0), width // 3)
    indent = " " * (size + 2)
    for name, text in rows:
        is_long = len(name) > size
        if is_long:
            yield name
        lead = indent if is_long else f"{name:<{size}}  "
        yield wrapped(text, lead=lead, indent=indent, width=width).rstrip()


def wrapped(text: str, *, indent: str = "", lead: str | None = None, width: int | None = None) -> str:
    """``text`` in lines of at most ``width`` columns, each after ``indent``, the first after ``lead``.

    Lines are broken at spaces alone: a path that is longer than a line stays whole.
    """
    lead = indent if lead is None else lead
    lines = textwrap.wrap(
        text,
        width or terminal_width(),
        initial_indent=lead,
        subsequent_indent=indent,
        break_on_hyphens=False,
        break_long_words=False,
    )
    return "\n".join(lines) or lead


def for_terminal(text: str, margin: str = "", *, stream: TextIO | None = None) -> str:
    """``text`` with ``margin`` before each line; in a terminal long lines are broken at words, in a file they stay."""
    width = terminal_width() if (stream or sys.stdout).isatty() else sys.maxsize
    return "\n".join(_folded(line, margin, width) for line in text.split("\n"))


def _folded(line: str, margin: str, width: int) -> str:
    if len(margin + line) <= width:
        return (margin + line).rstrip() if not line else margin + line
    own = line[: len(line) - len(line.lstrip())]
    return wrapped(line.lstrip(), lead=margin + own, indent=margin + own, width=width)

"""Plain tables that fit a terminal of 80 columns."""

import textwrap
from collections.abc import Iterator, Sequence

WIDTH = 80


def table(header: Sequence[str], rows: Sequence[Sequence[str]], *, width: int = WIDTH) -> Iterator[str]:
    """The lines of a table; the last column is wrapped into what is left of the width."""
    cells = [header, *rows]
    sizes = [max(len(row[i]) for row in cells) for i in range(len(header) - 1)]
    indent = sum(sizes) + 2 * len(sizes)
    room = max(width - indent, 20)
    for row in cells:
        lead = "".join(cell.ljust(size + 2) for cell, size in zip(row, sizes, strict=False))
        first, *more = textwrap.wrap(row[-1], room, break_on_hyphens=False) or [""]
        yield (lead + first).rstrip()
        yield from (" " * indent + line for line in more)


def wrapped(text: str, *, indent: str = "", lead: str | None = None, width: int = WIDTH) -> str:
    """``text`` in lines of at most ``width`` columns, each after ``indent``, the first after ``lead``.

    Lines are broken at spaces alone: a path that is longer than a line stays whole.
    """
    return textwrap.fill(
        text,
        width,
        initial_indent=indent if lead is None else lead,
        subsequent_indent=indent,
        break_on_hyphens=False,
        break_long_words=False,
    )

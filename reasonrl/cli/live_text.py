"""Terminal text: sparklines, durations, folding."""

import math
from collections.abc import Sequence

from rich.cells import cell_len, chop_cells

BLOCKS = "▁▂▃▄▅▆▇█"
ASCII_LEVELS = "_.-~=+*#"
NOT_FINITE = "?"


def bars(values: Sequence[float], width: int, *, rows: int = 1, ascii_only: bool = False) -> list[str]:
    """Draw the last ``width`` values as columns of up to ``rows`` lines, top line first.

    The height spans minimum to maximum; a constant series is drawn at the bottom, a non-finite value as ``?``.
    """
    levels = ASCII_LEVELS if ascii_only else BLOCKS
    shown = list(values)[-width:] if width > 0 else []
    finite = [value for value in shown if math.isfinite(value)]
    low, high = (min(finite), max(finite)) if finite else (0.0, 0.0)
    most = rows * len(levels)

    def cell(value: float, row: int) -> str:
        if not math.isfinite(value):
            return NOT_FINITE if row == 0 else " "
        share = (value - low) / (high - low) if high > low else 0.0
        filled = min(most, int(share * most) + 1) - row * len(levels)
        return levels[min(filled, len(levels)) - 1] if filled > 0 else " "

    return ["".join(cell(value, row) for value in shown) for row in reversed(range(rows))]


def format_duration(seconds: float) -> str:
    """Format seconds as ``0:07``, ``12:34`` or ``1:02:03``."""
    minutes, rest = divmod(int(max(0.0, seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def last_lines(text: str, width: int, count: int) -> list[str]:
    """Return the last ``count`` non-blank lines of ``text`` (sanitized before), folded at ``width`` cells."""
    if count <= 0:
        return []
    kept = [line.rstrip() for line in text.split("\n") if line.strip()][-count:]
    folded = [part for line in kept for part in chop_cells(line, max(2, width))]
    return folded[-count:]


def fit(text: str, width: int) -> str:
    """Fit ``text`` on one line of at most ``width`` cells, truncated with ``...``."""
    line = " ".join(text.split("\n"))
    if cell_len(line) <= width:
        return line
    return (chop_cells(line, max(1, width - 3))[0] + "...")[: max(0, width)]

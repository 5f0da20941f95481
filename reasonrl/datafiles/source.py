"""A data file and how errors refer to it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from reasonrl.errors import RecipeError

SHOWN = 60


@dataclass(frozen=True, slots=True)
class Source:
    """A data file. ``key`` is the recipe key that names it."""

    path: Path
    key: str

    def error(self, text: str) -> RecipeError:
        """Build an error about the file as a whole."""
        return RecipeError(f"{self.key}: {self.path}: {text}")

    def line(self, number: int) -> str:
        """``path:number``, counted from 1."""
        return f"{self.path}:{number}"

    def row(self, number: int) -> str:
        """``path, row number`` for files without lines."""
        return f"{self.path}, row {number}"


def preview(value: object) -> str:
    """Format a value for an error, truncated; null, true and false as in JSON."""
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


def format_error(err: BaseException) -> str:
    """Format an error on one line."""
    if isinstance(err, json.JSONDecodeError):
        return f"{err.msg} (character {err.colno})"
    if isinstance(err, RecursionError):
        return "nested too deeply"
    return " ".join(str(err).split())

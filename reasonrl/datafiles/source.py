"""A file that is being read, and how errors name it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from reasonrl.errors import RecipeError

SHOWN = 60


@dataclass(frozen=True, slots=True)
class Source:
    """``key`` is the recipe's key that names the file."""

    path: Path
    key: str

    def error(self, text: str) -> RecipeError:
        """About the file as a whole."""
        return RecipeError(f"{self.key}: {self.path}: {text}")

    def line(self, number: int) -> str:
        return f"{self.path}:{number}"

    def row(self, number: int) -> str:
        return f"{self.path}, row {number}"


def shown(value: object) -> str:
    """A value in an error: its start; null, true and false as JSON has them."""
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


def said(err: BaseException) -> str:
    """What an error says, on one line."""
    if isinstance(err, json.JSONDecodeError):
        return f"{err.msg} (character {err.colno})"
    if isinstance(err, RecursionError):
        return "nested too deeply"
    return " ".join(str(err).split())

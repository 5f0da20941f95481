"""One row of a dataset, with typed access to its columns and errors that name file and line."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, cast, get_args, get_type_hints

from reasonrl.contracts.data import Message
from reasonrl.datafiles.source import preview
from reasonrl.errors import RecipeError
from reasonrl.text import list_some

ROLES = get_args(get_type_hints(Message)["role"])
MAX_DIGITS = 18
_WHOLE = re.compile(r"[+-]?[0-9]{1,18}(\.0*)?")


@dataclass(frozen=True, slots=True)
class DataRow:
    """A row and its location, such as ``"rows.jsonl:12"`` or ``"rows.parquet, row 12"``.

    Nested columns have dotted names, such as ``"reward_model.ground_truth"``. Booleans are neither text nor numbers.
    Every accessor raises RecipeError naming the location, the column and its value.
    """

    where: str
    values: Mapping[str, object]

    def has(self, column: str) -> bool:
        """Whether the column exists and is not null."""
        try:
            return self.value(column) is not None
        except RecipeError:
            return False

    def value(self, column: str) -> Any:
        """Return the raw value of a column, with numpy scalars and arrays converted to Python."""
        if column in self.values:
            return _plain(self.values[column])
        found: object = self.values
        parts = column.split(".")
        for number, part in enumerate(parts):
            if not isinstance(found, Mapping):
                outer = ".".join(parts[:number])
                raise self.error(f"no column {column!r}: {outer!r} is {preview(found)}, expected an object")
            if part not in found:
                outer = f"{'.'.join(parts[:number])!r}" if number else "the row"
                raise self.error(f"no column {column!r}; {outer} has {_names(found)}")
            found = found[part]
        return _plain(found)

    def text(self, column: str, *, allow_empty: bool = False) -> str:
        """Return text, or a number converted to text."""
        value = self.value(column)
        if isinstance(value, bool) or not isinstance(value, str | int | float | Decimal):
            raise self.error(f"column {column!r} must be text or a number, got {preview(value)}")
        if isinstance(value, float) and not math.isfinite(value):
            raise self.error(f"column {column!r} must be text or a finite number, got {value}")
        text = str(value)
        if not allow_empty and not text.strip():
            raise self.error(f"column {column!r} is empty, expected text")
        return self._encodable(column, text)

    def integer(self, column: str) -> int:
        """Return an integer, also if written as text, as in a CSV file."""
        return self._integer(column, self.value(column))

    def integers(self, column: str) -> list[int]:
        """Return a list of integers, also from text such as ``[3, 5, 8]`` or ``3 5 8``."""
        value = self.value(column)
        if isinstance(value, str):
            value = [part for part in re.split(r"[,\s]+", value.strip().strip("[]()")) if part]
        if not isinstance(value, list | tuple):
            raise self.error(f"column {column!r} must be a list of whole numbers, got {preview(value)}")
        return [self._integer(column, item) for item in value]

    def prompt(self, column: str, *, allow_empty: bool = False) -> str | tuple[Message, ...]:
        """Return text, or messages for the model's chat template."""
        if isinstance(self.value(column), list | tuple):
            return self.messages(column)
        return self.text(column, allow_empty=allow_empty)

    def messages(self, column: str) -> tuple[Message, ...]:
        """Return a non-empty list of ``{"role": ..., "content": text}`` messages."""
        value = self.value(column)
        if not isinstance(value, list | tuple) or not value:
            raise self.error(f"column {column!r} must be a list of messages, got {preview(value)}")
        return tuple(self._message(f"{column}[{number}]", entry) for number, entry in enumerate(value))

    def error(self, text: str) -> RecipeError:
        """Build an error about this row for the caller to raise."""
        return RecipeError(f"{self.where}: {text}")

    def _message(self, name: str, entry: object) -> Message:
        role, content = (entry.get("role"), entry.get("content")) if isinstance(entry, Mapping) else ("", None)
        if role not in ROLES or not isinstance(content, str):
            expected = f'{{"role": {" | ".join(ROLES)}, "content": text}}'
            raise self.error(f"{name} must be {expected}, got {preview(entry)}")
        return Message(role=cast(Any, role), content=self._encodable(name, content))

    def _integer(self, column: str, value: object) -> int:
        value = _plain(value)
        if isinstance(value, int | float | Decimal) and not isinstance(value, bool):
            is_number = isinstance(value, int) or math.isfinite(value)  # an int may be too large for isfinite
            if is_number and abs(value) < 10**MAX_DIGITS and value == int(value):
                return int(value)
        if isinstance(value, str) and _WHOLE.fullmatch(value.strip()):
            return int(value.strip().partition(".")[0])
        raise self.error(f"column {column!r} must hold whole numbers, got {preview(value)}")

    def _encodable(self, column: str, text: str) -> str:
        """Reject lone surrogates, which tokenizers reject without naming the source."""
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as err:
            raise self.error(
                f"column {column!r} has a lone surrogate, {text[err.start]!r}, at character {err.start}; "
                "expected valid Unicode"
            ) from err
        return text


def _names(values: Iterable[object]) -> str:
    return list_some(values) or "no columns"


def _plain(value: object) -> object:
    """Convert numpy scalars and arrays without importing numpy."""
    convert = getattr(value, "tolist", None)
    return convert() if callable(convert) else value

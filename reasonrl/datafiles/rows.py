"""One row of a data set. What a column holds is checked where it is read, so that errors name file and line."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, cast, get_args, get_type_hints

from reasonrl.contracts.data import Message
from reasonrl.datafiles.source import shown
from reasonrl.errors import RecipeError

ROLES = get_args(get_type_hints(Message)["role"])
MAX_DIGITS = 18
_WHOLE = re.compile(r"[+-]?[0-9]{1,18}(\.0*)?")


@dataclass(frozen=True, slots=True)
class DataRow:
    """A row and where it stands, as ``"rows.jsonl:12"`` or ``"rows.parquet, row 12"``.

    A column inside another one is named by a dotted path, as in ``"reward_model.ground_truth"``. Booleans are
    neither text nor numbers. Every method raises RecipeError naming the place, the column and what it holds.
    """

    where: str
    values: Mapping[str, Any]

    def has(self, column: str) -> bool:
        """Whether there is such a column, and not null."""
        try:
            return self.value(column) is not None
        except RecipeError:
            return False

    def value(self, column: str) -> Any:
        """What the column holds, as it was read; numpy's scalars and arrays as Python's."""
        if column in self.values:
            return _plain(self.values[column])
        found: Any = self.values
        parts = column.split(".")
        for number, part in enumerate(parts):
            if not isinstance(found, Mapping):
                outer = ".".join(parts[:number])
                raise self.error(f"no column {column!r}: {outer!r} is {shown(found)}, expected an object")
            if part not in found:
                outer = f"{'.'.join(parts[:number])!r}" if number else "the row"
                raise self.error(f"no column {column!r}; {outer} has {_names(found)}")
            found = found[part]
        return _plain(found)

    def text(self, column: str, *, allow_empty: bool = False) -> str:
        """Text as it stands, or a number as its text."""
        value = self.value(column)
        if isinstance(value, bool) or not isinstance(value, str | int | float | Decimal):
            raise self.error(f"column {column!r} must be text or a number, got {shown(value)}")
        if isinstance(value, float) and not math.isfinite(value):
            raise self.error(f"column {column!r} must be text or a finite number, got {value}")
        text = str(value)
        if not allow_empty and not text.strip():
            raise self.error(f"column {column!r} is empty, expected text")
        return self._encodable(column, text)

    def integer(self, column: str) -> int:
        """A whole number; also one that is written as text, as in a CSV file."""
        return self._integer(column, self.value(column))

    def integers(self, column: str) -> list[int]:
        """A list of whole numbers; also as text, such as ``[3, 5, 8]`` or ``3 5 8``."""
        value = self.value(column)
        if isinstance(value, str):
            value = [part for part in re.split(r"[,\s]+", value.strip().strip("[]()")) if part]
        if not isinstance(value, list | tuple):
            raise self.error(f"column {column!r} must be a list of whole numbers, got {shown(value)}")
        return [self._integer(column, item) for item in value]

    def prompt(self, column: str, *, allow_empty: bool = False) -> str | tuple[Message, ...]:
        """Text, or a list of messages: a conversation for the model's chat template."""
        if isinstance(self.value(column), list | tuple):
            return self.messages(column)
        return self.text(column, allow_empty=allow_empty)

    def messages(self, column: str) -> tuple[Message, ...]:
        """A list of ``{"role": ..., "content": text}``, at least one."""
        value = self.value(column)
        if not isinstance(value, list | tuple) or not value:
            raise self.error(f"column {column!r} must be a list of messages, got {shown(value)}")
        return tuple(self._message(f"{column}[{number}]", entry) for number, entry in enumerate(value))

    def error(self, text: str) -> RecipeError:
        """An error about this row, to be raised by whoever finds it wrong."""
        return RecipeError(f"{self.where}: {text}")

    def _message(self, name: str, entry: Any) -> Message:
        role, content = (entry.get("role"), entry.get("content")) if isinstance(entry, Mapping) else ("", None)
        if role not in ROLES or not isinstance(content, str):
            expected = f'{{"role": {" | ".join(ROLES)}, "content": text}}'
            raise self.error(f"{name} must be {expected}, got {shown(entry)}")
        return Message(role=cast(Any, role), content=self._encodable(name, content))

    def _integer(self, column: str, value: Any) -> int:
        value = _plain(value)
        if isinstance(value, int | float | Decimal) and not isinstance(value, bool):
            is_whole = math.isfinite(value) and abs(value) < 10**MAX_DIGITS and value == int(value)
            if is_whole:
                return int(value)
        if isinstance(value, str) and _WHOLE.fullmatch(value.strip()):
            return int(value.strip().partition(".")[0])
        raise self.error(f"column {column!r} must hold whole numbers, got {shown(value)}")

    def _encodable(self, column: str, text: str) -> str:
        """Half a surrogate pair is no character; tokenizers refuse it without saying where it came from."""
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as err:
            raise self.error(
                f"column {column!r} has a lone surrogate, {text[err.start]!r}, at character {err.start}; "
                "expected valid Unicode"
            ) from err
        return text


def _names(values: Mapping[Any, Any]) -> str:
    return ", ".join(map(str, values)) or "no columns"


def _plain(value: Any) -> Any:
    """numpy's scalars and arrays have ``tolist``; numpy itself need not be loaded to know."""
    convert = getattr(value, "tolist", None)
    return convert() if callable(convert) else value

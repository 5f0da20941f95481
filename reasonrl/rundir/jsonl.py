"""JSON Lines files that stay readable while they are written and after a crash."""

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

LONE_SURROGATES = "backslashreplace"
"""UTF-8 cannot hold half a character; inside a JSON string ``\\udc80`` is read back as that half."""


def to_line(record: Mapping[str, object]) -> str:
    """One record as a line of strict JSON; NaN and infinities become null."""
    return json.dumps(_finite(record), ensure_ascii=False, allow_nan=False) + "\n"


def append_jsonl(path: Path, record: Mapping[str, object]) -> None:
    """Append one record in a single write."""
    with path.open("a", encoding="utf-8", errors=LONE_SURROGATES) as file:
        file.write(to_line(record))


def write_jsonl(path: Path, records: Iterable[Mapping[str, object]]) -> None:
    """Write all records as a new file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", errors=LONE_SURROGATES) as file:
        file.writelines(to_line(record) for record in records)


def read_jsonl(path: Path) -> Iterator[dict[str, Any]]:
    """The records of a file; a last line that was cut off by a crash is left out."""
    # Not splitlines(): a model may write U+2028 or U+0085, which end no record.
    *lines, rest = path.read_bytes().split(b"\n")
    yield from (json.loads(line) for line in lines)
    try:
        last = json.loads(rest)
    except ValueError:  # empty, as it should be, or cut off, perhaps inside a character
        return
    yield last


def _finite(value: object) -> object:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value

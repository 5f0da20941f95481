"""JSON Lines files that stay readable while they are written and after a crash."""

import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from reasonrl.redact import known_secrets, redact_data, redact_keys
from reasonrl.rundir import files
from reasonrl.rundir.reading import UnreadableError, open_regular, parse_json, read_lines

LONE_SURROGATES = "backslashreplace"
"""UTF-8 cannot hold half a character; inside a JSON string ``\\udc80`` is read back as that half."""
TAIL_BYTES = 65536
"""More than a line of metrics is long."""


def to_line(record: Mapping[str, object]) -> str:
    """One record as a line of strict JSON; NaN and infinities become null."""
    return json.dumps(_finite(record), ensure_ascii=False, allow_nan=False) + "\n"


def append_jsonl(path: Path, record: Mapping[str, object]) -> None:
    """Append one record of numbers, its keys without secrets, in a single write."""
    with files.naming(path), files.open_to_write(path, "a", errors=LONE_SURROGATES) as file:
        file.write(to_line(redact_keys(record)))


def write_jsonl(path: Path, records: Iterable[Mapping[str, object]]) -> None:
    """Write all records, without secrets, as a new file."""
    known = known_secrets()
    path.parent.mkdir(parents=True, exist_ok=True)
    files.unlink_shared(path)
    with files.naming(path), files.open_to_write(path, "w", errors=LONE_SURROGATES) as file:
        file.writelines(to_line(redact_data(record, known)) for record in records)


def read_jsonl(path: Path) -> Iterator[dict[str, Any]]:
    """The records of a file; a last line that was cut off by a crash is left out.

    Raises:
        UnreadableError: at a line that holds no record, or if it is not a regular file.
        OSError: if it is missing, or cannot be read.
    """
    for number, record, is_cut in read_lines(path):
        if record is not None:
            yield record
        elif not is_cut:
            raise UnreadableError(f"line {number} does not hold a JSON object")


def read_intact(path: Path) -> list[dict[str, Any]]:
    """The records of a file, without damaged lines; none if it cannot be read."""
    try:
        return [record for _, record, _ in read_lines(path) if record is not None]
    except (OSError, UnreadableError):
        return []


def last_record(path: Path) -> dict[str, Any]:
    """The last whole record of a file, without reading all of it; {} if there is none."""
    try:
        with open_regular(path) as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL_BYTES))
            lines = file.read().split(b"\n")[:-1]
        record = parse_json(lines[-1]) if lines else {}
        return record if isinstance(record, dict) else {}
    except (OSError, ValueError):
        return {}


def end_of_lines(path: Path) -> int:
    """Bytes up to the end of the last whole line of a file."""
    end = 0
    with open_regular(path) as file:
        for line in iter(lambda: file.readline(TAIL_BYTES), b""):
            end = file.tell() if line.endswith(b"\n") else end
    return end


def _finite(value: object) -> object:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value

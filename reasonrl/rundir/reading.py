"""Read a file that anybody may have changed: of any kind, size, depth and content. Standard library only."""

import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

MAX_BYTES = 64 << 20
"""Of a JSON document, or of one line of a JSON Lines file. Parsed, it takes ten times the memory."""


class UnreadableError(ValueError):
    """A file that is there, but does not hold what it should; the text says why, without the path."""


@contextmanager
def open_regular(path: Path) -> Iterator[BinaryIO]:
    """Open a regular file to read. A FIFO or device is refused, which would wait forever or never end.

    Raises:
        UnreadableError: If it is something else.
        OSError: If it is missing, or cannot be opened.
    """
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise UnreadableError("is not a regular file")
    with open(handle, "rb") as file:
        yield file


def read_bytes(path: Path, most: int | None = None) -> bytes:
    """Read a regular file of at most ``most`` bytes, by default ``MAX_BYTES``.

    Raises:
        UnreadableError: If it is larger, or not a regular file.
        OSError: If it is missing, or cannot be read.
    """
    most = MAX_BYTES if most is None else most
    with open_regular(path) as file:
        if os.fstat(file.fileno()).st_size > most:
            raise UnreadableError(f"is larger than {most >> 20} MiB")
        return file.read()


def parse_json(text: bytes | str) -> Any:
    """Parse JSON of any depth.

    Raises:
        UnreadableError: If it is not JSON.
    """
    try:
        return json.loads(text)
    except RecursionError as err:
        raise UnreadableError("is not valid JSON: nested too deeply") from err
    except ValueError as err:
        raise UnreadableError(f"is not valid JSON: {str(err)[:100]}") from err


def read_json(path: Path) -> Any:
    """Read a JSON document.

    Raises:
        UnreadableError: If it holds something else.
        OSError: If it is missing, or cannot be read.
    """
    return parse_json(read_bytes(path))


def read_object(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        UnreadableError: If it holds something else.
        OSError: If it is missing, or cannot be read.
    """
    data = read_json(path)
    if not isinstance(data, dict):
        raise UnreadableError("does not hold a JSON object")
    return data


def read_lines(path: Path) -> Iterator[tuple[int, dict[str, Any] | None, bool]]:
    """Yield the number of each line, its JSON object (None: it holds something else), and whether it was cut off.

    Only the last line can be cut off, by a crash or a full disk. One line at a time is in memory.

    Raises:
        UnreadableError: If it is not a regular file.
        OSError: If it is missing, or cannot be read.
    """
    with open_regular(path) as file:
        number = 0
        while line := file.readline(MAX_BYTES):
            number += 1
            is_ended = line.endswith(b"\n")
            if not is_ended and len(line) == MAX_BYTES:
                line, is_ended = b"", _skip_line(file)  # longer than any record of ours
            record = _parse_record(line)
            yield number, record, record is None and not is_ended


def _skip_line(file: BinaryIO) -> bool:
    """Skip the rest of a line; returns whether it ends before the file does."""
    while piece := file.readline(MAX_BYTES):
        if piece.endswith(b"\n"):
            return True
    return False


def _parse_record(line: bytes) -> dict[str, Any] | None:
    try:
        data = parse_json(line)
    except UnreadableError:
        return None
    return data if isinstance(data, dict) else None

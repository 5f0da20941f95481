"""What one row, and what a compressed file, may become in memory."""

from __future__ import annotations

import gzip
import io
from collections.abc import Mapping
from typing import Any

from reasonrl.datafiles.source import Source

ROW_BYTES = 64 << 20
"""Of a line of JSONL or a row of Parquet."""
DOCUMENT_BYTES = 1 << 30
"""Of JSON or CSV, decompressed: they are parsed as a whole."""
GROWTH, GROWN_BYTES = 100, 256 << 20
"""A file may become so many times its size on the disk, or so many bytes. Text grows by 3 to 20."""


class Allowance:
    """How much the content of a compressed file may add up to."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._most = max(GROWN_BYTES, GROWTH * source.path.stat().st_size)
        self._taken = 0

    def take(self, size: int) -> None:
        """Count ``size`` more bytes.

        Raises:
            RecipeError: If they are too many.
        """
        self._taken += size
        if self._taken > self._most:
            raise self._source.error(
                f"expands to over {self._most >> 20:,} MiB, at least {GROWTH} times its size on disk; if it is not "
                "damaged, split it, or store it uncompressed"
            )


class _Counted(io.RawIOBase):
    def __init__(self, stream: Any, allowance: Allowance) -> None:
        self._stream, self._allowance = stream, allowance

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count: int = self._stream.readinto(buffer)
        self._allowance.take(count)
        return count

    def close(self) -> None:
        self._stream.close()
        super().close()


def open_gzip(source: Source) -> io.BufferedReader:
    """Open a gzip file whose content is counted as it is read."""
    return io.BufferedReader(_Counted(gzip.open(source.path), Allowance(source)))


def read_document(source: Source, stream: io.BufferedIOBase) -> bytes:
    """Read all of a file.

    Raises:
        RecipeError: If it is too large to be parsed as a whole.
    """
    content = stream.read(DOCUMENT_BYTES + 1)
    if len(content) > DOCUMENT_BYTES:
        raise source.error(
            f"larger than {DOCUMENT_BYTES >> 20:,} MiB, too large to parse as a whole; convert it to .jsonl or .parquet"
        )
    return content


def weigh(value: object) -> int:
    """Roughly how many bytes a value from Parquet takes."""
    if isinstance(value, str | bytes):
        return len(value)
    if isinstance(value, Mapping):
        return 8 + sum(map(weigh, value.values()))
    if isinstance(value, list | tuple):
        return 8 + sum(map(weigh, value))
    return 8

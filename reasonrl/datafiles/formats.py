"""Parse JSONL, JSON, CSV and Parquet into (location, row) pairs."""

from __future__ import annotations

import codecs
import csv
import io
import json
from collections.abc import Iterator

from reasonrl.datafiles.source import Source, format_error, preview
from reasonrl.errors import RecipeError

Rows = Iterator[tuple[str, object]]


def jsonl_rows(source: Source, stream: io.BufferedIOBase) -> Rows:
    """Parse one row per line, skipping empty lines. Only newlines end a line: a text may contain U+2028."""
    for number, raw in enumerate(stream, 1):
        line = _decode(source, raw, number).strip()
        if line:
            is_torn = not raw.endswith(b"\n")
            yield source.line(number), _parse(source, line, number, is_torn)


def json_rows(source: Source, stream: io.BufferedIOBase) -> Rows:
    """Parse a list of objects; rows are identified by number."""
    text = _decode(source, stream.read(), 1)
    try:
        rows = json.loads(text)
    except (ValueError, RecursionError) as err:
        line = getattr(err, "lineno", 1)
        hint = "; if every line is an object, rename the file to .jsonl" if "Extra data" in str(err) else ""
        raise RecipeError(f"{source.line(line)}: not valid JSON: {format_error(err)}{hint}") from err
    if not isinstance(rows, list):
        what = f"an object with {', '.join(map(str, rows))}" if isinstance(rows, dict) else preview(rows)
        raise source.error(f"expected a list of objects, one per row; got {what}")
    yield from ((source.row(number), row) for number, row in enumerate(rows, 1))


def csv_rows(source: Source, stream: io.BufferedIOBase) -> Rows:
    """Parse a header and rows of the same width; a row that spans lines is identified by its first line."""
    text = _decode(source, stream.read(), 1)
    limit = csv.field_size_limit(len(text) + 1)  # allow cells over 128 KiB
    try:
        lines = list(_csv_lines(source, text))
    finally:
        csv.field_size_limit(limit)
    if not lines:
        return
    header = [name.strip() for name in lines[0][1]]
    _check_header(source, header, lines[0][0])
    for where, cells in lines[1:]:
        if len(cells) != len(header):
            raise RecipeError(f"{where}: expected {len(header)} cells, got {len(cells)}; columns: {', '.join(header)}")
        yield where, dict(zip(header, cells, strict=True))


def _csv_lines(source: Source, text: str) -> Iterator[tuple[str, list[str]]]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    first = 1
    try:
        for cells in reader:
            if cells:
                yield source.line(first), cells
            first = reader.line_num + 1
    except csv.Error as err:
        raise RecipeError(f"{source.line(first)}: not valid CSV: {err}") from err


def _check_header(source: Source, header: list[str], where: str) -> None:
    if len(set(header)) < len(header):
        raise RecipeError(f"{where}: duplicate column name in the header: {', '.join(header)}")
    if len(header) == 1 and any(mark in header[0] for mark in ";\t|"):
        raise RecipeError(f"{where}: the header has one column, {header[0]!r}; expected comma-separated columns")


def parquet_rows(source: Source) -> Rows:
    """Read rows batch by batch."""
    from pyarrow import ArrowException, parquet

    number = 0
    try:
        with parquet.ParquetFile(source.path) as file:
            for batch in file.iter_batches():
                for row in batch.to_pylist():
                    number += 1
                    yield source.row(number), row
    except (ArrowException, OSError, UnicodeDecodeError) as err:
        raise source.error(f"cannot read as Parquet after row {number}: {format_error(err)}") from err


def _decode(source: Source, raw: bytes, first_line: int) -> str:
    """Decode UTF-8 with or without a byte order mark; ``raw`` begins at line ``first_line``."""
    if first_line == 1:
        raw = raw.removeprefix(codecs.BOM_UTF8)
    try:
        text = raw.decode("utf-8")
        bad = raw.find(b"\0")
    except UnicodeDecodeError as err:
        bad = err.start
    if bad < 0:
        return text
    line = first_line + raw.count(b"\n", 0, bad)
    is_wide = b"\0" in raw or raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    guess = "UTF-16" if is_wide else "Latin-1"
    raise RecipeError(
        f"{source.line(line)}: byte 0x{raw[bad]:02x} is not UTF-8 text, perhaps {guess}; save the file as UTF-8, for "
        f"instance with `iconv -f {guess} -t UTF-8`"
    )


def _parse(source: Source, line: str, number: int, is_torn: bool) -> object:
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as err:
        hint = "expected one object per line"
        if line in ("[", "{"):
            hint = "expected one object per line; rename a file that is one JSON list to .json"
        elif is_torn:
            hint = "the last line is incomplete"
        found = f"{format_error(err)} in {preview(line)}"
        raise RecipeError(f"{source.line(number)}: not valid JSON: {found}; {hint}") from err

"""Parse JSONL, JSON, CSV and Parquet into (location, row) pairs."""

from __future__ import annotations

import codecs
import csv
import io
import json
from collections.abc import Iterator

from reasonrl.datafiles.limits import ROW_BYTES, Allowance, read_document, weigh
from reasonrl.datafiles.source import Source, format_error, preview
from reasonrl.errors import RAISABLE, RecipeError
from reasonrl.text import list_some

Rows = Iterator[tuple[str, object]]
EMPTY_LINES = 1_000_000
"""Consecutive empty lines that are allowed.

A damaged or compressed file may hold so many that reading them takes minutes."""
PARQUET_ROWS = 256
"""Rows that are decompressed at once."""


def jsonl_rows(source: Source, stream: io.BufferedIOBase) -> Rows:
    """Parse one row per line, skipping empty lines. Only newlines end a line: a text may contain U+2028."""
    empty = 0
    for number, raw in enumerate(iter(lambda: stream.readline(ROW_BYTES + 1), b""), 1):
        if len(raw) > ROW_BYTES:
            what = f"a line longer than {ROW_BYTES >> 20} MiB"
            raise RecipeError(f"{source.line(number)}: {what}; expected one row per line")
        line = _decode(source, raw, number).strip()
        empty = 0 if line else empty + 1
        if empty > EMPTY_LINES:
            what = f"over {EMPTY_LINES:,} consecutive empty lines"
            raise RecipeError(f"{source.line(number)}: {what}; expected one row per line")
        if line:
            is_torn = not raw.endswith(b"\n")
            yield source.line(number), _parse(source, line, number, is_torn)


def json_rows(source: Source, stream: io.BufferedIOBase) -> Rows:
    """Parse a list of objects; rows are identified by number."""
    text = _decode(source, read_document(source, stream), 1)
    try:
        rows = json.loads(text)
    except (ValueError, RecursionError) as err:
        line = getattr(err, "lineno", 1)
        hint = "; if every line is an object, rename the file to .jsonl" if "Extra data" in str(err) else ""
        raise RecipeError(f"{source.line(line)}: not valid JSON: {format_error(err)}{hint}") from err
    if not isinstance(rows, list):
        what = f"an object with {list_some(rows)}" if isinstance(rows, dict) else preview(rows)
        raise source.error(f"expected a list of objects, one per row; got {what}")
    yield from ((source.row(number), row) for number, row in enumerate(rows, 1))


def csv_rows(source: Source, stream: io.BufferedIOBase) -> Rows:
    """Parse a header and rows of the same width; a row that spans lines is identified by its first line."""
    text = _decode(source, read_document(source, stream), 1)
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
            raise RecipeError(f"{where}: expected {len(header)} cells, got {len(cells)}; columns: {list_some(header)}")
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
        raise RecipeError(f"{where}: duplicate column name in the header: {list_some(header)}")
    if len(header) == 1 and any(mark in header[0] for mark in ";\t|"):
        raise RecipeError(f"{where}: the header has one column, {header[0]!r}; expected comma-separated columns")


def parquet_rows(source: Source) -> Rows:
    """Read rows batch by batch."""
    allowance = Allowance(source)
    number = 0
    try:
        for row in _parquet_values(source):
            number += 1
            if (size := weigh(row)) > ROW_BYTES:
                what = f"a row larger than {ROW_BYTES >> 20} MiB"
                raise RecipeError(f"{source.row(number)}: {what}; drop its largest columns")
            allowance.take(size)
            yield source.row(number), row
    except RecipeError:
        raise
    except RAISABLE as err:  # of a damaged file, or a value that Python has no type for: the library may raise anything
        raise source.error(f"cannot read as Parquet after row {number}: {format_error(err)}") from err


def _parquet_values(source: Source) -> Iterator[dict[str, object]]:
    """One row at a time is made of Python objects: what is small in the file may be large then."""
    from pyarrow import parquet

    with parquet.ParquetFile(source.path) as file:
        names = file.schema_arrow.names
        if len(set(names)) < len(names):
            raise source.error(f"duplicate column name: {list_some(names)}")
        for batch in file.iter_batches(batch_size=PARQUET_ROWS):
            columns = [(value.as_py() for value in column) for column in batch.columns]
            for values in zip(*columns, strict=True):
                yield dict(zip(names, values, strict=True))


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

"""Read rows from files and hub datasets. The suffix decides the format; text formats may add ``.gz``."""

from __future__ import annotations

import difflib
import gzip
import io
import os
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from reasonrl.datafiles.formats import Rows, csv_rows, json_rows, jsonl_rows, parquet_rows
from reasonrl.datafiles.limits import open_gzip
from reasonrl.datafiles.rows import DataRow
from reasonrl.datafiles.source import Source, format_error, preview
from reasonrl.errors import RAISABLE, RecipeError

TEXT: Mapping[str, Callable[[Source, io.BufferedIOBase], Rows]] = {
    ".jsonl": jsonl_rows,
    ".json": json_rows,
    ".csv": csv_rows,
}
PARQUET = ".parquet"
FORMATS = ".jsonl, .json, .csv (each with or without .gz) or .parquet"
# Unsupported suffixes that still mean a file. Not any suffix: hub names contain dots too ("owner/data-v1.0").
OTHERS = (".gz", ".tsv", ".txt", ".ndjson", ".yaml", ".yml", ".xml", ".xlsx", ".arrow", ".pkl", ".pt", ".zip", ".zst")
LFS_POINTER = b"version https://git-lfs.github.com/spec/"
MAGIC = {
    b"\x1f\x8b": "gzip",
    b"PK\x03\x04": "zip",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
    b"PAR1": "Parquet",
}
BATCH = 1000
MAX_REASON = 300


def is_local(name: str) -> bool:
    """Whether ``name`` is a path, existing or not; otherwise it names a hub dataset."""
    path = _path(name)
    return (
        os.path.exists(path)  # unlike Path.exists, False for an invalid path
        or name.startswith((".", "/", "~"))
        or "\\" in name
        or name.count("/") > 1
        or path.suffix.lower() in {*TEXT, PARQUET, *OTHERS}
    )


def _path(name: str) -> Path:
    return Path(os.path.expanduser(name))


def read_rows(name: str, *, key: str = "data", subset: str | None = None, split: str = "train") -> Iterator[DataRow]:
    """Read the rows of a file, or of one split of a dataset on the hub or in a folder.

    Args:
        name: A path, relative to the working directory, or a hub name such as ``openai/gsm8k``.
        key: The recipe key of the file, named in errors.
        subset: Configuration of a hub dataset.
        split: Split of a hub dataset.

    Raises:
        RecipeError: If the data cannot be read, is malformed or has no rows.
    """
    source = Source(_path(name), key)
    is_file = is_local(name) and not source.path.is_dir()
    rows = _file_rows(source) if is_file else _hub_rows(name, source, subset, split)
    count = 0
    for where, values in rows:
        count += 1
        if not isinstance(values, Mapping):
            raise RecipeError(f"{where}: expected an object, got {preview(values)}")
        yield DataRow(where, values)
    if not count:
        raise source.error("no rows; expected at least one")


def local_size(name: str, *, key: str = "data") -> int | None:
    """Return the size in bytes of a file; None for a folder or a hub dataset.

    Raises:
        RecipeError: If the file does not exist or is not a data file.
    """
    source = Source(_path(name), key)
    if not is_local(name) or source.path.is_dir():
        return None
    try:
        _check_file(source, *_format(source.path))
        return source.path.stat().st_size
    except OSError as err:
        raise source.error(f"cannot read: {err.strerror or format_error(err)}") from err


def _format(path: Path) -> tuple[str, bool]:
    """Return the format suffix, and whether ``.gz`` follows it."""
    suffixes = ["", *(suffix.lower() for suffix in path.suffixes)]
    is_gzip = suffixes[-1] == ".gz"
    return suffixes[-2 if is_gzip else -1], is_gzip


def _file_rows(source: Source) -> Rows:
    suffix, is_gzip = _format(source.path)
    try:
        _check_file(source, suffix, is_gzip)
        if suffix == PARQUET:
            yield from parquet_rows(source)
            return
        with open_gzip(source) if is_gzip else source.path.open("rb") as stream:
            yield from TEXT[suffix](source, stream)
    except (EOFError, zlib.error, gzip.BadGzipFile) as err:
        raise source.error(f"corrupted or truncated: {format_error(err)}; download the file again") from err
    except OSError as err:
        raise source.error(f"cannot read: {err.strerror or format_error(err)}") from err


def _check_file(source: Source, suffix: str, is_gzip: bool) -> None:
    path = source.path
    if not os.path.exists(path):
        raise source.error(f"no such file{_nearby(path)}; expected an existing file or a hub dataset")
    if not path.is_file():
        raise source.error("not a regular file")
    if suffix not in TEXT and (suffix != PARQUET or is_gzip):
        raise source.error(f"unsupported file suffix; expected {FORMATS}")
    with path.open("rb") as stream:
        start = stream.read(len(LFS_POINTER))
    if not start:
        raise source.error("empty file; expected at least one row")
    if start == LFS_POINTER:
        raise source.error("a Git LFS pointer, not the data; run `git lfs pull` in its repository")
    expected = "gzip" if is_gzip else "Parquet" if suffix == PARQUET else None
    found = next((name for magic, name in MAGIC.items() if start.startswith(magic)), None)
    if expected and found != expected:
        raise source.error(f"not {expected} data despite its suffix; download the file again or rename it")
    if found and not expected:
        raise source.error(f"{found} data, expected text; decompress it (gzip: or rename it to {path.name}.gz)")


def _nearby(path: Path) -> str:
    """Suggest a similar file name."""
    if not path.parent.is_dir():
        return f" (there is not a folder {path.parent})"
    close = difflib.get_close_matches(path.name, [entry.name for entry in path.parent.iterdir()], n=1)
    return f"; did you mean {str(path.parent / close[0])!r}?" if close else ""


def _hub_rows(name: str, source: Source, subset: str | None, split: str) -> Rows:
    """Load through the datasets library and its cache."""
    folder = str(source.path) if source.path.is_dir() else None
    number = 0
    try:
        from datasets import load_dataset

        table = load_dataset(folder or name, subset, split=split).with_format("arrow")
        for batch in table.iter(BATCH):
            for row in batch.to_pylist():
                number += 1
                yield f"{name}[{split}], row {number}", row
    except RAISABLE as err:  # the library may raise anything
        why = f"{type(err).__name__}: {format_error(err)}"[:MAX_REASON]
        what, cure = ("cannot load from the hub", "check name, subset, split and network, or use an existing file")
        if folder:
            what, cure = "cannot load this folder as a dataset", "use one of its files"
        raise source.error(f"{what} (split {split!r}): {why}; {cure}") from err

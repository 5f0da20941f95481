"""Data files that are small on the disk and large in memory, or hold what Python has no type for: one line each."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet
from typer.testing import CliRunner

from reasonrl import DataRow, read_rows
from reasonrl.cli.app import app
from reasonrl.data.pairs import read_pairs
from reasonrl.datafiles import formats, limits
from reasonrl.errors import RecipeError

MIB = 1 << 20


def said(read: Callable[[], object]) -> str:
    with pytest.raises(RecipeError) as caught:
        read()
    (text,) = caught.value.args
    assert len(text) <= 1000
    assert "\n" not in text
    return str(text)


def refusal(path: Path) -> str:
    return said(lambda: list(read_rows(str(path))))


@pytest.fixture
def small_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """The limits, a hundredth of what they are."""
    monkeypatch.setattr(limits, "GROWN_BYTES", 2 * MIB)
    monkeypatch.setattr(limits, "DOCUMENT_BYTES", 4 * MIB)
    monkeypatch.setattr(formats, "ROW_BYTES", MIB)
    monkeypatch.setattr(formats, "EMPTY_LINES", 1000)


BOMBS: dict[str, tuple[bytes, str]] = {
    "line.jsonl.gz": (b"9" * 8 * MIB, "line.jsonl.gz:1: a line longer than 1 MiB; expected one row per line"),
    "rows.jsonl.gz": (b'{"a": 1}\n' * MIB, "rows.jsonl.gz: expands to over 2 MiB"),
    "empty.jsonl.gz": (b"\n" * 2000, "empty.jsonl.gz:1001: over 1,000 consecutive empty lines"),
    "space.json.gz": (b" " * 8 * MIB + b"[]", "space.json.gz: expands to over 2 MiB"),
    "rows.csv.gz": (b"a,b\n" + b"1,2\n" * 2 * MIB, "rows.csv.gz: expands to over 2 MiB"),
    "cell.csv.gz": (b'a,b\n"' + b"x" * 8 * MIB, "cell.csv.gz: expands to over 2 MiB"),
    "plain.jsonl": (b"\0" * 2 * MIB, "plain.jsonl:1: a line longer than 1 MiB"),
    "plain.json": (b" " * 5 * MIB, "plain.json: larger than 4 MiB, too large to parse as a whole; convert it to"),
    "plain.csv": (b"a\n" * 3 * MIB, "plain.csv: larger than 4 MiB"),
}


@pytest.mark.parametrize("name", BOMBS)
def test_what_is_too_large_in_memory_is_refused(name: str, tmp_path: Path, small_limits: None) -> None:
    content, expected = BOMBS[name]
    path = tmp_path / name
    path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    assert expected in refusal(path)


def test_a_parquet_file_that_repeats_a_large_text_is_refused(tmp_path: Path, small_limits: None) -> None:
    texts = pyarrow.DictionaryArray.from_arrays(pyarrow.array([0] * 5000, pyarrow.int32()), pyarrow.array(["x" * 2000]))
    parquet.write_table(pyarrow.table({"a": texts}), tmp_path / "bomb.parquet")
    assert (tmp_path / "bomb.parquet").stat().st_size < 20_000
    assert "bomb.parquet: expands to over 2 MiB, at least 100 times its size on disk" in refusal(
        tmp_path / "bomb.parquet"
    )
    parquet.write_table(pyarrow.table({"a": ["b", "x" * 2 * MIB]}), tmp_path / "row.parquet")
    assert "row.parquet, row 2: a row larger than 1 MiB; drop its largest columns" in refusal(tmp_path / "row.parquet")


@pytest.mark.parametrize("empty", [[], {}])
def test_a_row_of_many_empty_containers_is_refused(empty: object, tmp_path: Path, small_limits: None) -> None:
    kind = pyarrow.list_(
        pyarrow.list_(pyarrow.int8()) if empty == [] else pyarrow.map_(pyarrow.string(), pyarrow.int8())
    )
    parquet.write_table(pyarrow.table({"a": pyarrow.array([[empty] * 200_000], kind)}), tmp_path / "empty.parquet")
    assert "empty.parquet, row 1: a row larger than 1 MiB" in refusal(tmp_path / "empty.parquet")
    assert limits.weigh({"a": empty}) > limits.weigh(empty) > 0


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv", ".jsonl.gz", ".parquet"])
def test_what_is_large_and_within_the_limits_is_read(suffix: str, tmp_path: Path, small_limits: None) -> None:
    path = tmp_path / f"rows{suffix}"
    rows = [{"a": str(number) * 20} for number in range(20_000)]
    if suffix == ".parquet":
        parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    else:
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        text = {".json": json.dumps(rows), ".csv": "a\n" + "\n".join(row["a"] for row in rows)}.get(suffix, lines)
        path.write_bytes(gzip.compress(text.encode()) if suffix.endswith(".gz") else text.encode())
    assert [row.text("a") for row in read_rows(str(path))] == [row["a"] for row in rows]


ODD: dict[str, Any] = {
    "microseconds": pyarrow.array([2**62], pyarrow.timestamp("us")),
    "before": pyarrow.array([-(2**60)], pyarrow.timestamp("us")),
    "milliseconds": pyarrow.array([2**62], pyarrow.timestamp("ms")),
    "days": pyarrow.array([2**31 - 1], pyarrow.int32()).cast(pyarrow.date32()),
}


@pytest.mark.parametrize("name", ODD)
def test_a_value_that_python_cannot_hold_is_one_line(name: str, tmp_path: Path) -> None:
    path = tmp_path / "odd.parquet"
    parquet.write_table(pyarrow.table({"prompt": ["a"], "completion": ["b"], "when": ODD[name]}), path)
    assert "odd.parquet: cannot read as Parquet after row 0: " in refusal(path)
    recipe = tmp_path / "sft.yaml"
    recipe.write_text(
        "{name: x, model: {name: countdown-base}, sft: {max_tokens: 9, tokens_per_batch: 9}, "
        f"optimizer: {{learning_rate: 0.1}}, data: {{path: {path}}}}}"
    )
    done = CliRunner().invoke(app, ["recipes", "check", str(recipe)])
    assert (done.exit_code, done.stderr.count("\n")) == (2, 1), done.output
    assert "cannot read as Parquet" in done.stderr


def test_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    table = pyarrow.Table.from_arrays([pyarrow.array([1]), pyarrow.array([2])], names=["a", "a"])
    parquet.write_table(table, tmp_path / "twice.parquet")
    assert "twice.parquet: duplicate column name: a, a" in refusal(tmp_path / "twice.parquet")


@pytest.mark.parametrize("value", [10**400, -(10**400), Decimal(10) ** 400, Decimal("NaN"), Decimal("inf")])
def test_a_number_of_any_size_is_no_whole_number(value: Any) -> None:
    assert "must hold whole numbers" in said(lambda: DataRow("here", {"n": value}).integer("n"))
    assert "must hold whole numbers" in said(lambda: DataRow("here", {"n": [value]}).integers("n"))


def test_of_thousands_of_columns_a_few_are_named(tmp_path: Path) -> None:
    path = tmp_path / "wide.jsonl"
    path.write_text(json.dumps({f"c{number}": 1 for number in range(9000)} | {"x" * 5000: 1}))
    for read in (lambda: read_pairs(str(path)), lambda: next(read_rows(str(path))).text("a")):
        text = said(read)
        assert "c0, c1, c2" in text
        assert "c19, 8,981 more" in text
    path.write_text(json.dumps({"messages": [{"role": "user", "content": ""}] * 9000}))
    assert "user, 8,980 more" in said(lambda: read_pairs(str(path)))
    path = tmp_path / "wide.csv"
    path.write_text(",".join("a" for _ in range(9000)) + "\n1\n")
    assert "a, 8,980 more" in refusal(path)

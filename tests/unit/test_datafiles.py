"""The one reader of data files: the same rows in every format, and one line that names the place of a fault."""

import gzip
import io
import json
import re
import subprocess
import sys
from contextlib import suppress
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from reasonrl import DataRow, Message, read_rows
from reasonrl.datafiles import is_local
from reasonrl.errors import RecipeError

ROWS: list[dict[str, Any]] = [
    {"question": "1+1?", "answer": "2"},
    {"question": 'line\nbreak, "quote", comma; é 漢 \u2028 \u0085', "answer": "x" * 200_000},
    {"question": "última", "answer": "-3"},
]
BOM = b"\xef\xbb\xbf"


def encode(rows: list[dict[str, Any]], suffix: str) -> bytes:
    """What another program would write."""
    if suffix.endswith(".gz"):
        return gzip.compress(encode(rows, suffix[:-3]))
    if suffix == ".jsonl":
        return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
    if suffix == ".json":
        return json.dumps(rows, indent=1, ensure_ascii=False).encode()
    if suffix == ".csv":
        import csv

        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
        return text.getvalue().encode()
    sink = io.BytesIO()
    parquet.write_table(pyarrow.Table.from_pylist(rows), sink)
    return sink.getvalue()


TEXT_SUFFIXES = (".jsonl", ".json", ".csv")
SUFFIXES = (*TEXT_SUFFIXES, *(f"{suffix}.gz" for suffix in TEXT_SUFFIXES), ".parquet")


def write(folder: Path, name: str, content: bytes) -> str:
    (folder / name).write_bytes(content)
    return str(folder / name)


def values(path: str) -> list[dict[str, Any]]:
    return [dict(row.values) for row in read_rows(path)]


def refusal(path: str, **options: Any) -> str:
    """The message, which is one line."""
    with pytest.raises(RecipeError) as caught:
        list(read_rows(path, **options))
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("case", [str, str.upper], ids=["lower", "upper"])
def test_every_format_gives_the_same_rows(suffix: str, case: Any, tmp_path: Path) -> None:
    assert values(write(tmp_path, f"rows{case(suffix)}", encode(ROWS, suffix))) == ROWS


@pytest.mark.parametrize("suffix", TEXT_SUFFIXES)
def test_a_byte_order_mark_and_windows_line_ends_change_nothing(suffix: str, tmp_path: Path) -> None:
    rows = [{"a": "1", "b": "2"}, {"a": "3", "b": "4"}]
    content = encode(rows, suffix).replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
    assert values(write(tmp_path, f"rows{suffix}", BOM + content)) == rows
    assert values(write(tmp_path, f"rows{suffix}.gz", gzip.compress(BOM + content))) == rows


def test_places_are_lines_where_there_are_lines(tmp_path: Path) -> None:
    def places(name: str, content: bytes) -> list[str]:
        return [row.where.removeprefix(f"{tmp_path}/") for row in read_rows(write(tmp_path, name, content))]

    assert places("a.jsonl", b'\n{"a": 1}\n  \n{"a": "\xe2\x80\xa8"}') == ["a.jsonl:2", "a.jsonl:4"]
    assert places("a.csv", b'a,b\n1,"two\nlines"\n\n3,4\n') == ["a.csv:2", "a.csv:5"]
    assert places("a.json", b'[{"a": 1},\n{"a": 2}]') == ["a.json, row 1", "a.json, row 2"]
    assert places("a.parquet", encode([{"a": 1}] * 2, ".parquet")) == ["a.parquet, row 1", "a.parquet, row 2"]


GOOD = b'{"question": "a", "answer": "1"}\n'
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"

FAULTS = [
    ("torn.jsonl", GOOD * 2 + GOOD[:20], r"torn.jsonl:3: not valid JSON: .* in '{\"question\".*the last line"),
    ("middle.jsonl", GOOD + b"{\n" + GOOD, r"middle.jsonl:2: not valid .*rename a file that is one JSON list to .json"),
    ("html.jsonl", b"<!DOCTYPE html>\n", r"html.jsonl:1: not valid JSON: .*'<!DOCTYPE html>'"),
    ("deep.jsonl", b"[" * 100_000 + b"\n", r"deep.jsonl:1: not valid JSON: nested too deeply"),
    ("digits.jsonl", b"1" * 10_000 + b"\n", r"digits.jsonl:1: not valid JSON: "),
    ("list.jsonl", GOOD + b"[1]\n", r"list.jsonl:2: expected an object, got \[1\]"),
    ("latin.jsonl", GOOD + '{"a": "é"}\n'.encode("latin-1"), r"latin.jsonl:2: byte 0xe9 .*iconv -f Latin-1"),
    ("latin.json", '[{"a": 1},\n{"a": "é"}]'.encode("latin-1"), r"latin.json:2: byte 0xe9 is not UTF-8"),
    ("latin.csv", "a\n1\né\n".encode("latin-1"), r"latin.csv:3: byte 0xe9 is not UTF-8"),
    ("wide.jsonl", GOOD.decode().encode("utf-16"), r"wide.jsonl:1: byte 0xff is not UTF-8 text, perhaps UTF-16"),
    ("wide.json", b"[]".decode().encode("utf-16-le"), r"wide.json:1: byte 0x00 is not UTF-8 text, perhaps UTF-16"),
    ("wide.csv", "a,b\n1,2\n".encode("utf-16"), r"wide.csv:1: byte 0xff .*iconv -f UTF-16"),
    ("torn.json", b'[{"a": 1},\n{"a": ', r"torn.json:2: not valid JSON"),
    ("lines.json", GOOD * 2, r"lines.json:2: not valid JSON: .*rename the file to .jsonl"),
    ("object.json", b'{"data": [], "version": 1}', r"object.json: expected a list .* an object with data, version"),
    ("null.json", b"null", r"null.json: expected a list of objects, one per row; got null"),
    ("short.csv", b"a,b\n1,2\n3\n", r"short.csv:3: expected 2 cells, got 1; columns: a, b"),
    ("long.csv", b"a,b\n1,2,3\n", r"long.csv:2: expected 2 cells, got 3; columns: a, b"),
    ("torn.csv", b'a,b\n1,2\n3,"four', r"torn.csv:3: not valid CSV: unexpected end of data"),
    ("twice.csv", b"a,a\n1,2\n", r"twice.csv:1: duplicate column name"),
    ("excel.csv", b"question;answer\na;1\n", r"excel.csv:1: the header has one column, 'question;answer'; .*comma"),
    ("header.csv", b"a,b\n", r"data: .*header.csv: no rows"),
    ("blank.jsonl", b"\n \n", r"data: .*blank.jsonl: no rows"),
    ("none.json", b"[]", r"data: .*none.json: no rows"),
    ("empty.csv", b"", r"data: .*empty.csv: empty file; expected at least one row"),
    ("text.parquet", b"no parquet", r"text.parquet: not Parquet data"),
    ("torn.parquet", b"PAR1" + b"x" * 50, r"torn.parquet: cannot read as Parquet"),
    ("text.jsonl.gz", GOOD, r"text.jsonl.gz: not gzip data"),
    ("torn.jsonl.gz", gzip.compress(GOOD * 9000)[:50], r"torn.jsonl.gz: corrupted or truncated: .*download"),
    ("bad.csv.gz", gzip.compress(b"a\n1\n")[:-8] + b"\0" * 8, r"bad.csv.gz: corrupted or truncated"),
    ("zipped.jsonl", gzip.compress(GOOD), r"zipped.jsonl: gzip data, expected text; .*zipped.jsonl.gz"),
    ("table.parquet.gz", gzip.compress(b"PAR1"), r"table.parquet.gz: unsupported file suffix; .*\.csv .*or \.parquet"),
    ("rows.tsv", b"a\tb\n", r"rows.tsv: unsupported file suffix; expected \.jsonl"),
    ("rows", b"{}", r"rows: unsupported file suffix; expected \.jsonl"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "content", "message"), FAULTS, ids=[name for name, *_ in FAULTS])
def test_a_fault_is_one_line_with_its_place(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    said = refusal(write(tmp_path, name, content))
    assert re.search(message, said), said
    assert str(tmp_path / name) in said


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_git_lfs_pointer_is_called_one(suffix: str, tmp_path: Path) -> None:
    said = refusal(write(tmp_path, f"rows{suffix}", LFS), key="task.dataset")
    assert said.startswith(f"task.dataset: {tmp_path}/rows{suffix}: a Git LFS pointer")
    assert "git lfs pull" in said


def test_what_cannot_be_opened_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    write(tmp_path, "questions.jsonl", GOOD)
    said = refusal(str(tmp_path / "question.jsonl"))
    assert "no such file; did you mean '" in said
    assert f"there is not a folder {tmp_path}/none" in refusal(str(tmp_path / "none" / "x.csv"))
    (tmp_path / "link.jsonl").symlink_to(tmp_path / "gone")
    assert "link.jsonl: no such file" in refusal(str(tmp_path / "link.jsonl"))
    os.mkfifo(tmp_path / "pipe.jsonl")
    assert "pipe.jsonl: not a regular file" in refusal(str(tmp_path / "pipe.jsonl"))

    def deny(*_: object, **__: object) -> Any:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", deny)
    assert "questions.jsonl: cannot read: Permission denied" in refusal(str(tmp_path / "questions.jsonl"))


def test_a_path_is_never_taken_for_a_hub_name_nor_the_other_way_round(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    (tmp_path / "plain").write_text("")
    files = [
        "rows.jsonl",
        "a/rows.CSV",
        "a/b/c",
        "./x",
        "../x",
        "/x",
        "~/x",
        "~nobody/x",
        "C:\\x",
        "x.tsv",
        "here",
        "plain",
    ]
    assert [name for name in files if not is_local(name)] == []
    names = ["gsm8k", "openai/gsm8k", "owner/data-v1.0", "Jiayi-Pan/Countdown-Tasks-3to4", "x\0y", "o" * 5000]
    assert [name for name in names if is_local(name)] == []
    for name in files[:10]:
        said = refusal(name)
        assert "hub (split" not in said
        assert "no such file" in said
    assert re.match(
        r"data: owner/data-v1.0: cannot load from the hub \(split 'train'\): .*network",
        refusal("owner/data-v1.0"),
    )


def test_a_folder_is_read_as_a_data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "rows").mkdir()
    write(tmp_path / "rows", "train.jsonl", GOOD * 3)
    (row, *_) = rows = list(read_rows(str(tmp_path / "rows")))
    assert (len(rows), row.where) == (3, f"{tmp_path}/rows[train], row 1")
    assert "cannot load this folder as a dataset (split 'test')" in refusal(str(tmp_path / "rows"), split="test")
    (tmp_path / "nothing").mkdir()
    assert "use one of its files" in refusal(str(tmp_path / "nothing"))


def test_reading_loads_neither_torch_nor_datasets(tmp_path: Path) -> None:
    paths = [write(tmp_path, f"rows{suffix}", encode(ROWS, suffix)) for suffix in SUFFIXES]
    code = (
        "import sys; from reasonrl import read_rows; [list(read_rows(p)) for p in sys.argv[1:]];"
        "print({'torch', 'datasets', 'transformers', 'pandas'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code, *paths], capture_output=True, text=True, check=False)
    assert (done.stdout.strip(), done.stderr) == ("set()", "")


def row(**columns: Any) -> DataRow:
    return DataRow("rows.jsonl:7", columns)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (3, 3),
        (3.0, 3),
        ("3", 3),
        (" -3.0 ", -3),
        (Decimal("3.00"), 3),
        (np.int64(3), 3),
        (np.float32(3), 3),
        (np.array(3), 3),
    ],
)
def test_what_is_a_whole_number(value: Any, expected: int) -> None:
    assert row(n=value).integer("n") == expected
    assert row(n=[value, value]).integers("n") == [expected, expected]


@pytest.mark.parametrize(
    "value",
    [True, np.bool_(True), None, 3.5, "3.5", "1e3", "1_000", "٣", "", float("nan"), float("inf"), Decimal("NaN"),
     Decimal("1e999999999"), 10**18, "9" * 19, "three", [3], {"n": 3}, b"3"],
    ids=repr,
)  # fmt: skip
def test_what_is_not_a_whole_number(value: Any) -> None:
    for call in (row(n=value).integer, row(n=[1, value]).integers):
        with pytest.raises(RecipeError, match=r"^rows\.jsonl:7: column 'n' must hold whole numbers, got ."):
            call("n")


@pytest.mark.parametrize(
    "value", [[3, 5, 8], (3, 5, 8), np.array([3, 5, 8]), "[3, 5, 8]", "3 5 8", "[3 5 8]", "(3,5,8)"], ids=repr
)
def test_lists_may_be_text(value: Any) -> None:
    assert row(nums=value).integers("nums") == [3, 5, 8]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (" as it is ", " as it is "),
        (3, "3"),
        (2.5, "2.5"),
        (Decimal("1.50"), "1.50"),
        (np.int64(7), "7"),
        (np.str_("x"), "x"),
    ],
)
def test_what_is_text(value: Any, expected: str) -> None:
    assert row(t=value).text("t") == expected


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (True, "must be text or a number, got true"),
        (None, "must be text or a number, got null"),
        (["a"], r"must be text or a number, got \['a'\]"),
        (b"a", "must be text or a number, got b'a'"),
        (float("nan"), "must be text or a finite number, got nan"),
        (" \n", "is empty"),
        ("a\ud800b", r"has a lone surrogate, '\\ud800', at character 1"),
    ],
)
def test_what_is_not_text(value: Any, message: str) -> None:
    with pytest.raises(RecipeError, match=rf"^rows\.jsonl:7: column 't' {message}"):
        row(t=value).text("t")


def test_a_lone_surrogate_in_a_file_is_named_by_its_line(tmp_path: Path) -> None:
    path = write(tmp_path, "rows.jsonl", GOOD + b'{"question": "\\ud83d"}\n')
    with pytest.raises(RecipeError, match=r"rows\.jsonl:2: column 'question' has a lone surrogate"):
        [r.text("question") for r in read_rows(path)]


def test_columns_may_lie_inside_columns(tmp_path: Path) -> None:
    nested = {"reward_model": {"ground_truth": "42", "style": "rule"}, "a.b": "flat", "none": None}
    for suffix in (".jsonl", ".parquet"):
        (found,) = read_rows(write(tmp_path, f"rows{suffix}", encode([nested], suffix)))
        assert found.text("reward_model.ground_truth") == "42"
        assert found.text("a.b") == "flat"
        assert [found.has(c) for c in ("reward_model.style", "reward_model.x", "x", "none")] == [
            True,
            False,
            False,
            False,
        ]
    for column, message in (
        ("answer", "no column 'answer'; the row has reward_model, a.b, none"),
        ("reward_model.x", "no column 'reward_model.x'; 'reward_model' has ground_truth, style"),
        ("none.x", "no column 'none.x': 'none' is null, expected an object"),
    ):
        with pytest.raises(RecipeError, match=re.escape(message)):
            found.text(column)


def test_a_prompt_may_be_a_conversation(tmp_path: Path) -> None:
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "1+1?"}]
    for suffix in (".jsonl", ".parquet"):
        (found,) = read_rows(write(tmp_path, f"rows{suffix}", encode([{"prompt": turns}], suffix)))
        assert found.prompt("prompt") == tuple(Message(**turn) for turn in turns)
    assert row(prompt="1+1?").prompt("prompt") == "1+1?"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([], r"column 'm' must be a list of messages, got \[\]"),
        ("text", "column 'm' must be a list of messages, got 'text'"),
        (
            [{"role": "user", "content": "a"}, "b"],
            r"m\[1\] must be {\"role\": system \| user \| assistant \| tool, .*got 'b'",
        ),
        ([{"role": "critic", "content": "a"}], r"m\[0\] must be .*got {'role': 'critic'"),
        ([{"role": ["user"], "content": "a"}], r"m\[0\] must be"),
        ([{"role": "user", "content": None}], r"m\[0\] must be"),
        ([{"from": "human", "value": "a"}], r"m\[0\] must be"),
        ([{"role": "user", "content": "\udc00"}], r"column 'm\[0\]' has a lone surrogate"),
    ],
)
def test_what_is_not_a_conversation(value: Any, message: str) -> None:
    with pytest.raises(RecipeError, match=rf"^rows\.jsonl:7: {message}"):
        row(m=value).messages("m")


CELLS = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0\r"), max_size=20)


@settings(max_examples=60)
@given(st.lists(st.fixed_dictionaries({"question": CELLS, "answer": CELLS}), min_size=1, max_size=5))
def test_any_text_survives_every_format(tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]]) -> None:
    folder = tmp_path_factory.mktemp("formats")
    for suffix in SUFFIXES:
        assert values(write(folder, f"rows{suffix}", encode(rows, suffix))) == rows, suffix


@settings(max_examples=150)
@given(st.binary(max_size=60), st.sampled_from(SUFFIXES), st.integers(0, 400))
def test_no_content_breaks_the_reader(
    tmp_path_factory: pytest.TempPathFactory, noise: bytes, suffix: str, at: int
) -> None:
    """Good files with noise written over them: rows, or one line that names the file."""
    content = encode([{"a": "1", "b": ["x"] * 5}] * 3, suffix)
    spoilt = content[:at] + noise + content[at + len(noise) :]
    path = write(tmp_path_factory.mktemp("noise"), f"rows{suffix}", spoilt)
    with suppress(RecipeError):
        list(read_rows(path))
        return
    assert path in refusal(path)

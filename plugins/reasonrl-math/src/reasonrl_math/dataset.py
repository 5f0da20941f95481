"""Problems with known answers, from the hub or from a file."""

import json
import random
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reasonrl import Problem, Split, TaskContext
from reasonrl_math.config import MathConfig
from reasonrl_math.splits import split_of
from reasonrl_math.templates import lead, render

FILE_SUFFIXES = (".jsonl", ".json", ".parquet")
EXAMPLES = Path(__file__).resolve().parent / "data" / "examples.jsonl"
_FORM = "give the final answer, once, as \\boxed{...}"
_SHOWN = 80


@dataclass(frozen=True, slots=True)
class Row:
    """A problem, its known answer, and what its column says before that answer (a solution), if anything."""

    question: str
    answer: str
    solution: str


class MathTask:
    """``info`` is ``{"answer": text}``. Held out are a split, a file, or a tenth of the problems by their text.

    Raises: ValueError naming file and row when a file, column or row is missing or malformed.
    """

    def __init__(self, config: MathConfig, context: TaskContext) -> None:
        del context  # the rows decide, not the seed
        self._config = config
        self._splits = _read_splits(config)

    def size(self, split: Split) -> int:
        """The number of different problems of the split."""
        return len(self._splits[split])

    def problem(self, split: Split, index: int) -> Problem:
        """The problem at ``index``, in the order of the file. Raises: IndexError beyond the end."""
        rows = self._splits[split]
        if not 0 <= index < len(rows):
            raise IndexError(f"math: {split} has {len(rows)} problems, got index {index}")
        row = rows[index]
        prompt, prefix = render(self._config.template, row.question, _FORM)
        info = {"answer": row.answer, "solution": row.solution}
        return Problem(id=f"math/{split}/{index}", prompt=prompt, assistant_prefix=prefix, info=info)

    def reference(self, problem: Problem) -> str:
        """The known solution, and the known answer in a box."""
        opening = lead(
            problem.prompt, problem.assistant_prefix, problem.info["solution"] or "I know the answer."
        )
        return f"{opening}\\boxed{{{problem.info['answer']}}}"

    def demonstration(self, problem: Problem, rng: random.Random) -> str:
        """The same."""
        del rng
        return self.reference(problem)


def _read_splits(config: MathConfig) -> dict[Split, list[Row]]:
    path = config.path or str(EXAMPLES)
    rows = _distinct(_rows(path, config, config.train_split))
    if config.eval_path is None and config.eval_split is None:
        splits: dict[Split, list[Row]] = {"train": [], "eval": []}
        for row in rows:
            splits[split_of(_key(row.question))].append(row)
    else:
        held_out = _distinct(_rows(config.eval_path or path, config, config.eval_split or config.train_split))
        known = {_key(row.question) for row in held_out}
        splits = {"train": [row for row in rows if _key(row.question) not in known], "eval": held_out}
    if not splits["train"]:
        raise ValueError(f"path {path}: no problem to train on among {len(rows)}")
    return splits


def _distinct(rows: Iterable[Row]) -> list[Row]:
    """Each problem once, the first of its kind."""
    first: dict[str, Row] = {}
    for row in rows:
        first.setdefault(_key(row.question), row)
    return list(first.values())


def _key(question: str) -> str:
    return " ".join(question.lower().split())


def _rows(path: str, config: MathConfig, split: str) -> Iterator[Row]:
    for where, raw in _raw_rows(path, config, split):
        texts = {name: _text(raw, name, where) for name in (config.question, config.answer)}
        yield _parsed(texts[config.question], texts[config.answer], config.marker, where)


def _text(raw: Any, column: str, where: str) -> str:
    if not isinstance(raw, Mapping):
        raise ValueError(f"{where}: must be an object with columns, got {str(raw)[:_SHOWN]}")
    if column not in raw:
        raise ValueError(f"{where}: no column '{column}'; it has {', '.join(map(str, raw)) or 'none'}")
    value = raw[column]
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(f"{where}: column '{column}' must be text or a number, got {str(value)[:_SHOWN]}")
    if not str(value).strip():
        raise ValueError(f"{where}: column '{column}' is empty")
    return str(value).strip()


def _parsed(question: str, answer: str, marker: str, where: str) -> Row:
    solution, found, final = answer.rpartition(marker) if marker else ("", "", answer)
    if found and not final.strip():
        raise ValueError(f"{where}: nothing follows the last {marker!r} of the answer")
    return Row(question, final.strip(), solution.strip())


def _raw_rows(path: str, config: MathConfig, split: str) -> Iterator[tuple[str, Any]]:
    """(file:row, row), counted from 1; a JSONL row is a line."""
    file = Path(path).expanduser()
    if file.suffix not in FILE_SUFFIXES:
        yield from ((f"{path}[{split}]:{i}", row) for i, row in enumerate(_hub(path, config, split), 1))
    elif not file.is_file():
        raise ValueError(f"path {path}: no such file; give an existing file or a hub name")
    elif file.suffix == ".parquet":
        yield from _parquet(file)
    else:
        yield from _json(file)


def _json(file: Path) -> Iterator[tuple[str, Any]]:
    try:
        text = file.read_text(encoding="utf-8")
    except UnicodeDecodeError as err:
        raise ValueError(f"{file}: not a text file (UTF-8 expected)") from err
    if file.suffix == ".json":
        rows = _loads(text, str(file))
        if not isinstance(rows, list):
            raise ValueError(f"{file}: must hold a list of objects, got {str(rows)[:_SHOWN]}")
        yield from ((f"{file}:{number}", row) for number, row in enumerate(rows, 1))
        return
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield f"{file}:{number}", _loads(line, f"{file}:{number}")


def _loads(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as err:
        raise ValueError(f"{where}: not valid JSON: {err}") from err


def _parquet(file: Path) -> Iterator[tuple[str, Any]]:
    from pyarrow import ArrowException, parquet

    try:
        rows = parquet.read_table(file).to_pylist()
    except (ArrowException, OSError) as err:
        raise ValueError(f"{file}: cannot be read as parquet: {err}") from err
    yield from ((f"{file}:{number}", row) for number, row in enumerate(rows, 1))


def _hub(name: str, config: MathConfig, split: str) -> Iterable[Any]:
    from datasets import load_dataset

    try:
        rows: Iterable[Any] = load_dataset(name, config.subset, split=split)
    except (OSError, ValueError) as err:  # ValueError: no such subset or split
        hint = "give a local file, or check name, subset, split and network"
        raise ValueError(f"path {name}: split '{split}' cannot be loaded ({err}); {hint}") from err
    return rows

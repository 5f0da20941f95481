"""Programming problems with tests, from the hub or from a file."""

import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reasonrl import DataSummary, Problem, Split, TaskContext, hold_out, read_rows
from reasonrl_code import shapes
from reasonrl_code.config import CodeConfig
from reasonrl_code.templates import answer, form_of, render

EXAMPLES = Path(__file__).resolve().parent / "data" / "examples.jsonl"


@dataclass(frozen=True)
class Entry:
    """A row and its difficulty, if any."""

    row: shapes.Row
    difficulty: str | int | float | None


class CodeTask:
    """``info`` holds the tests, what they need, and ``form``: where the program is in a completion.

    Held out are a split, a file, or a tenth of the problems by their text.

    Raises:
        RecipeError: naming file and line when a file, column or row is missing or malformed.
    """

    def __init__(self, config: CodeConfig, context: TaskContext) -> None:
        del context  # the rows decide, not the seed
        self._config = config

        def read(path: str, split: str) -> tuple[dict[str, Entry], dict[str, int]]:
            return _distinct(*_rows(path, config, split))

        self._splits, self._summaries = hold_out(read, config.path or str(EXAMPLES), config)

    def size(self, split: Split) -> int:
        """The number of different problems of the split."""
        return len(self._splits[split])

    def problem(self, split: Split, index: int) -> Problem:
        """The problem at ``index``, in the order of the file.

        Raises:
            IndexError: beyond the end.
        """
        entries = self._splits[split]
        if not 0 <= index < len(entries):
            raise IndexError(f"code: {split} has {len(entries)} problems, got index {index}")
        row, difficulty = entries[index].row, entries[index].difficulty
        prompt, prefix = render(self._config.template, row)
        info: dict[str, Any] = {**row.info, "form": form_of(self._config.template, row), "stub": row.stub}
        info["solution"] = answer(self._config.template, row) if row.solution else ""
        if difficulty is not None:
            info["difficulty"] = difficulty
        return Problem(id=f"code/{split}/{index}", prompt=prompt, assistant_prefix=prefix, info=info)

    def data_summary(self) -> list[DataSummary]:
        """Summarize the rows of each file or split."""
        return self._summaries

    def reference(self, problem: Problem) -> str | None:
        """Return the known solution, as a completion; None if the row has none."""
        return problem.info["solution"] or None

    def demonstration(self, problem: Problem, rng: random.Random) -> str | None:
        """Return the reference."""
        del rng
        return self.reference(problem)


def _rows(path: str, config: CodeConfig, split: str) -> tuple[list[Entry], dict[str, int]]:
    """Return the rows that have tests, and count the others by what they lack."""
    key = "task.path" if path != config.eval_path else "task.eval_path"
    found: list[Entry] = []
    dropped: dict[str, int] = {}
    for raw in read_rows(path, key=key, subset=config.subset, split=split):
        try:
            row = shapes.read(raw, config.shape, config.max_tests, config.shown_tests)
        except shapes.ShapeError as err:
            dropped[str(err)] = dropped.get(str(err), 0) + 1
            continue
        difficulty = raw.value(config.difficulty) if config.difficulty and raw.has(config.difficulty) else None
        found.append(Entry(row, difficulty if isinstance(difficulty, str | int | float) else None))
    return found, dropped


def _distinct(entries: Iterable[Entry], dropped: Mapping[str, int]) -> tuple[dict[str, Entry], dict[str, int]]:
    """Drop repeated problems, and count them."""
    kept: dict[str, Entry] = {}
    repeated = 0
    for entry in entries:
        key = " ".join(f"{entry.row.question} {' '.join(entry.row.shown)} {entry.row.entry}".split())
        repeated += key in kept
        kept.setdefault(key, entry)
    return kept, {**dropped, "repeated": repeated}

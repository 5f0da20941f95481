"""Problems with known answers, from the hub or from a file."""

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reasonrl import DataRow, DataSummary, Message, Problem, Split, TaskContext, hold_out, read_rows
from reasonrl_math.answers import Answer, UnreadableError, agree, describe, last_box, read_known
from reasonrl_math.config import MathConfig
from reasonrl_math.templates import lead, render

EXAMPLES = Path(__file__).resolve().parent / "data" / "examples.jsonl"
_FORM = "give the final answer, once, as \\boxed{...}"

_SHOWN = 60

Prompt = str | tuple[Message, ...]


@dataclass(frozen=True, slots=True)
class Row:
    """A problem, its known answer as text and as it was read, and the solution and difficulty that it gives, if any."""

    question: Prompt
    answer: str
    reading: Answer
    solution: str
    difficulty: str | int | float | None


class MathTask:
    """``info`` holds ``answer``, ``read_as`` (in words) and ``solution``.

    Held out are a split, a file, or a tenth of the problems by their text.

    Raises:
        RecipeError: naming file and line when a file, column or row is missing or malformed, or an answer cannot be
            read and ``unreadable`` is ``error``.
    """

    def __init__(self, config: MathConfig, context: TaskContext) -> None:
        del context  # the rows decide, not the seed
        self._config = config

        def read(path: str, split: str) -> tuple[dict[str, Row], dict[str, int]]:
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
        rows = self._splits[split]
        if not 0 <= index < len(rows):
            raise IndexError(f"math: {split} has {len(rows)} problems, got index {index}")
        row = rows[index]
        prompt, prefix = self._prompt(row.question)
        info: dict[str, Any] = {"answer": row.answer, "read_as": describe(row.reading), "solution": row.solution}
        if row.difficulty is not None:
            info["difficulty"] = row.difficulty
        return Problem(id=f"math/{split}/{index}", prompt=prompt, assistant_prefix=prefix, info=info)

    def data_summary(self) -> list[DataSummary]:
        """Summarize the rows of each file or split."""
        return self._summaries

    def _prompt(self, question: Prompt) -> tuple[Prompt, str]:
        """Build the prompt; a conversation is used verbatim."""
        if isinstance(question, str):
            return render(self._config.template, question.strip(), _FORM)
        return question, ""

    def reference(self, problem: Problem) -> str:
        """Return the known solution, and the known answer in a box."""
        opening = lead(problem.prompt, problem.assistant_prefix, problem.info["solution"] or "I know the answer.")
        return f"{opening}\\boxed{{{problem.info['answer']}}}"

    def demonstration(self, problem: Problem, rng: random.Random) -> str:
        """Return the reference."""
        del rng
        return self.reference(problem)


def _distinct(rows: Iterable[Row], dropped: Mapping[str, int]) -> tuple[dict[str, Row], dict[str, int]]:
    """Drop repeated problems and those with contradictory answers, and count both."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(_key(row.question), []).append(row)
    kept = {key: group[0] for key, group in groups.items() if _is_unanimous(group)}
    num_contradictory = sum(len(group) for key, group in groups.items() if key not in kept)
    num_repeated = sum(len(groups[key]) - 1 for key in kept)
    found = {"repeated": num_repeated, "contradictory: one question, several answers": num_contradictory}
    return kept, {**dropped, **found}


def _is_unanimous(group: Sequence[Row]) -> bool:
    first = group[0]
    return all(row.answer == first.answer or agree(first.reading, row.reading) for row in group[1:])


def _key(question: Prompt) -> str:
    text = question if isinstance(question, str) else "\n".join(f"{m.role}: {m.content}" for m in question)
    return " ".join(text.lower().split())


def _rows(path: str, config: MathConfig, split: str) -> tuple[list[Row], dict[str, int]]:
    """Return the rows whose answer is readable, and count the others."""
    key = "task.path" if path != config.eval_path else "task.eval_path"
    rows: list[Row] = []
    faults: list[str] = []
    for raw in read_rows(path, key=key, subset=config.subset, split=split):
        question = raw.prompt(config.question)
        answer, solution = _known(_answer(raw, config.answer).strip(), config.marker, raw)
        try:
            rows.append(Row(question, answer, read_known(answer), solution, _difficulty(raw, config.difficulty)))
        except UnreadableError as err:
            fault = f"the answer {answer[:_SHOWN]!r} cannot be read: {err}"
            if config.unreadable == "error":
                raise raw.error(f"{fault}; correct it, or drop such rows with task.unreadable=drop") from err
            faults.append(f"{raw.where}: {fault}")
    return rows, {f"unreadable, first {faults[0]}": len(faults)} if faults else {}


def _answer(row: DataRow, column: str) -> str:
    """Return the answer; several in a list become one, as a list is written."""
    value = row.value(column)
    if not isinstance(value, list | tuple) or not value:
        return row.text(column)
    return ", ".join(DataRow(row.where, {column: part}).text(column) for part in value)


def _difficulty(row: DataRow, column: str) -> str | int | float | None:
    if not column:
        return None
    text, value = row.text(column), row.value(column)
    return value if isinstance(value, int | float) else text


def _known(text: str, marker: str, row: DataRow) -> tuple[str, str]:
    """(answer, solution): the answer follows the last marker, or is in the last box, or is all of ``text``."""
    solution, found, final = text.rpartition(marker) if marker else ("", "", text)
    if found:
        if not final.strip():
            raise row.error(f"nothing follows the last {marker!r} of the answer")
        return final.strip(), solution.strip()
    box = last_box(text)
    if box is None:
        return text, ""
    return box, "" if len(box) + len("\\boxed{}") >= len(text) else text

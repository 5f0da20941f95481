"""Pairs to imitate, read from a file or a hub data set: prompt and completion, or a conversation."""

from dataclasses import dataclass

from reasonrl.contracts.data import Message, Problem
from reasonrl.datafiles import DataRow, read_rows

MESSAGES = "messages"


@dataclass(frozen=True, slots=True)
class Pair:
    """``problem.id`` is where the pair stands, as ``"pairs.jsonl:12"``."""

    problem: Problem
    completion: str


def read_pairs(
    path: str,
    *,
    prompt: str = "prompt",
    completion: str = "completion",
    subset: str | None = None,
    split: str = "train",
) -> list[Pair]:
    """Every row as a pair.

    A row has the columns ``prompt`` and ``completion``, each text or messages, or else ``messages``, of which the last,
    an assistant's, is the completion and the others are the prompt.

    Raises:
        RecipeError: naming file and line of the first row that is neither.
    """
    rows = read_rows(path, key="data.path", subset=subset, split=split)
    return [_pair(row, prompt, completion) for row in rows]


def _pair(row: DataRow, prompt: str, completion: str) -> Pair:
    if row.has(prompt) and row.has(completion):
        asked, answer = row.prompt(prompt, allow_empty=True), row.prompt(completion, allow_empty=True)
        text = answer if isinstance(answer, str) else _only_turn(row, completion, answer)
        return Pair(Problem(id=row.where, prompt=asked), text)
    if not row.has(MESSAGES):
        raise row.error(
            f"expected columns {prompt!r} and {completion!r}, or {MESSAGES!r}, none of them null; the row has "
            f"{', '.join(map(str, row.values)) or 'no columns'}: name others with data.prompt and data.completion"
        )
    *turns, last = row.messages(MESSAGES)
    if last.role != "assistant" or not turns:
        raise row.error(
            f"column {MESSAGES!r} must end with an assistant message, which is what is imitated, after at least one "
            f"other message; got {', '.join(turn.role for turn in (*turns, last))}"
        )
    return Pair(Problem(id=row.where, prompt=tuple(turns)), last.content)


def _only_turn(row: DataRow, column: str, turns: tuple[Message, ...]) -> str:
    if len(turns) != 1 or turns[0].role != "assistant":
        raise row.error(
            f"column {column!r} must be text or one assistant message, got messages of "
            f"{', '.join(turn.role for turn in turns)}"
        )
    return turns[0].content

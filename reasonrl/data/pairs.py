"""SFT pairs from a file or a hub dataset: prompt and completion, or a conversation."""

from dataclasses import dataclass

from reasonrl.contracts.data import Message, Problem
from reasonrl.datafiles import DataRow, read_rows

MESSAGES = "messages"


@dataclass(frozen=True, slots=True)
class Pair:
    """A prompt and its completion. ``problem.id`` is the location, such as ``"pairs.jsonl:12"``."""

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
    """Read every row as a pair.

    A row has the columns ``prompt`` and ``completion``, each text or messages, or a column ``messages`` whose last
    message, from the assistant, is the completion.

    Raises:
        RecipeError: If a row is neither; names file and line.
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
            f"expected non-null columns {prompt!r} and {completion!r}, or {MESSAGES!r}; got "
            f"{', '.join(map(str, row.values)) or 'no columns'}; set data.prompt and data.completion to your columns"
        )
    *turns, last = row.messages(MESSAGES)
    if last.role != "assistant" or not turns:
        raise row.error(
            f"column {MESSAGES!r} must end with an assistant message (the completion) after at least one "
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

"""SFT pairs from a file or a hub dataset: prompt and completion, or a conversation."""

from dataclasses import dataclass
from typing import Literal

from reasonrl.contracts.data import Message, Problem
from reasonrl.data.both_sides import CONVERSATION, Conversation, is_conversation
from reasonrl.datafiles import DataRow, read_rows
from reasonrl.text import list_some

MESSAGES = "messages"


TrainOn = Literal["last", "all"]
"""Which messages of the assistant in a conversation are imitated."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A prompt and its completion: text, or a conversation. ``problem.id`` is the place: ``"pairs.jsonl:12"``."""

    problem: Problem
    completion: str | Conversation


def read_pairs(
    path: str,
    *,
    prompt: str = "prompt",
    completion: str = "completion",
    subset: str | None = None,
    split: str = "train",
    train_on: TrainOn = "last",
) -> list[Pair]:
    """Read every row as a pair.

    A row has the columns ``prompt`` and ``completion``, each text or messages, or a column ``messages``. Of these the
    last message, from the assistant, is the completion; with ``train_on`` all, everything from the assistant's first.

    Raises:
        RecipeError: If a row is neither; names file and line.
    """
    rows = read_rows(path, key="data.path", subset=subset, split=split)
    return [_pair(row, prompt, completion, train_on) for row in rows]


def _pair(row: DataRow, prompt: str, completion: str, train_on: TrainOn) -> Pair:
    if row.has(prompt) and row.has(completion):
        asked, answer = row.prompt(prompt, allow_empty=True), row.prompt(completion, allow_empty=True)
        text = answer if isinstance(answer, str) else _only_turn(row, completion, answer)
        return Pair(Problem(id=row.where, prompt=asked), text)
    if not row.has(MESSAGES):
        raise row.error(
            f"expected non-null columns {prompt!r} and {completion!r}, or {MESSAGES!r}; got "
            f"{list_some(row.values) or 'no columns'}; set data.prompt and data.completion to your columns"
        )
    *turns, last = row.messages(MESSAGES)
    if last.role != "assistant" or not turns:
        raise row.error(
            f"column {MESSAGES!r} must end with an assistant message (the completion) after at least one "
            f"other message; got {list_some(turn.role for turn in (*turns, last))}"
        )
    if train_on == "last":
        return Pair(Problem(id=row.where, prompt=tuple(turns)), last.content)
    return _conversation(row, (*turns, last))


def _conversation(row: DataRow, messages: Conversation) -> Pair:
    start = next(at for at, message in enumerate(messages) if message.role == "assistant")
    asked, said = messages[:start], messages[start:]
    if not asked or not is_conversation(said):
        raise row.error(
            f"column {MESSAGES!r} must be a prompt, then {CONVERSATION}; got "
            f"{list_some(message.role for message in messages)}; fix the row, or set data.train_on=last"
        )
    return Pair(Problem(id=row.where, prompt=asked), said)


def _only_turn(row: DataRow, column: str, turns: tuple[Message, ...]) -> str:
    if len(turns) != 1 or turns[0].role != "assistant":
        raise row.error(
            f"column {column!r} must be text or one assistant message, got messages of "
            f"{list_some(turn.role for turn in turns)}"
        )
    return turns[0].content

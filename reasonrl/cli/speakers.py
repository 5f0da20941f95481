"""Who says what in a conversation that a terminal shows."""

from collections.abc import Mapping, Sequence

from rich.text import Text

from reasonrl.cli.live_text import last_lines
from reasonrl.text import sanitize

TASK = "task"
"""The other side, unless a person plays it."""


def speaker(role: str, other: str = TASK) -> str:
    """Name the side that wrote a message by its role: the model, or ``other``; other roles keep their names."""
    return {"assistant": "model", "user": other}.get(role, role)


def is_conversation(messages: Sequence[object]) -> bool:
    """Whether somebody replied to the model."""
    return len(messages) > 1


def spoken_lines(messages: Sequence[Mapping[str, str]], width: int, count: int, *, ascii_only: bool) -> list[Text]:
    """Return the last ``count`` lines of a conversation, each message named and what is not the model's dim."""
    drawn: list[Text] = []
    for message in messages[-count:] if count > 0 else ():
        name = f"{speaker(message['role'])}: "
        said = last_lines(sanitize(message["content"], ascii_only=ascii_only), width - len(name), count)
        style = "" if message["role"] == "assistant" else "dim"
        for at, line in enumerate(said or ["(nothing)"]):
            drawn.append(Text(f"{name if at == 0 else ' ' * len(name)}{line}", style=style, no_wrap=True))
    return drawn[-count:]

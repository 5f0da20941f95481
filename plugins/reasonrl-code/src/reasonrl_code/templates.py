"""Prompts. ``chat`` asks for a fenced block, ``base`` is text that the model continues."""

from reasonrl import Message
from reasonrl_code.shapes import Row

Prompt = str | tuple[Message, ...]
OPENED = "```python\n"
_FORM = "Write the whole {what} in one ```python block."
_STDIO = "The program reads from standard input and writes to standard output."


def render(template: str, row: Row) -> tuple[Prompt, str]:
    """A prompt and the text that is pre-filled for the model."""
    if template == "base":
        return (row.stub, "") if row.stub else (f"{_ask(row)}\n\n", OPENED)
    form = _FORM.format(what="function" if row.entry else "program")
    return (Message(role="user", content=f"{_ask(row)}\n\n{form}"),), ""


def form_of(template: str, row: Row) -> str:
    """What a completion is: the rest of a function, the rest of a block, or a text with the program in it."""
    if template == "chat":
        return "text"
    return "function" if row.stub else "block"


def answer(template: str, row: Row) -> str:
    """The completion with the known solution."""
    form = form_of(template, row)
    if form == "function":
        return row.solution
    ending = "" if row.program.endswith("\n") else "\n"
    return f"{'' if form == 'block' else OPENED}{row.program}{ending}```"


def _ask(row: Row) -> str:
    if row.stub:
        return f"Complete this function.\n\n```python\n{row.stub.strip()}\n```"
    parts = [row.question.strip()]
    if not row.entry:
        parts.append(_STDIO)
    if row.starter.strip():
        parts.append(f"Begin with:\n\n```python\n{row.starter.strip()}\n```")
    if row.shown:
        parts.append("It must pass:\n\n```python\n" + "\n".join(row.shown) + "\n```")
    elif row.entry and row.entry not in "".join(parts):
        parts.append(f"The function is called `{row.entry}`.")
    return "\n\n".join(parts)

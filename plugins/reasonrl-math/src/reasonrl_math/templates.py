"""Prompts. ``base`` opens the reasoning for the model, ``chat`` asks for it."""

from reasonrl import Message

OPENING = "<think>"


def render(template: str, question: str, form: str) -> tuple[str | tuple[Message, ...], str]:
    """A prompt and the text pre-filled for the model. ``form`` says how to write the answer."""
    request = f"Reason inside <think> </think> tags, then {form}."
    if template == "chat":
        return (Message(role="system", content=request), Message(role="user", content=question)), ""
    return f"A question and its answer. {request}\n\nQuestion: {question}\n\nAnswer:", f" {OPENING}"


def is_opened(prompt: str | tuple[Message, ...], prefix: str) -> bool:
    """Whether the prompt ends inside the reasoning already."""
    text = prefix or (prompt if isinstance(prompt, str) else "")
    return text.rstrip().endswith(OPENING)


def lead(prompt: str | tuple[Message, ...], prefix: str, thought: str) -> str:
    """What a completion with this thought begins with."""
    opening = "\n" if is_opened(prompt, prefix) else f"{OPENING}\n"
    return f"{opening}{thought}\n</think>\n"

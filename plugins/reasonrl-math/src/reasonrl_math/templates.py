"""Prompts. ``base`` opens the reasoning for the model, ``chat`` asks for it."""

from reasonrl import Message

OPENING = "<think>"


def render(template: str, question: str, form: str) -> tuple[str | tuple[Message, ...], str]:
    """A prompt and the text pre-filled for the model. ``form`` says how to write the answer."""
    request = f"Reason inside <think> </think> tags, then {form}."
    if template == "chat":
        return (Message(role="system", content=request), Message(role="user", content=question)), ""
    return f"A question and its answer. {request}\n\nQuestion: {question}\n\nAnswer:", f" {OPENING}"


def lead(prompt: str | tuple[Message, ...], prefix: str, thought: str) -> str:
    """What a completion with this thought begins with. The core leaves out a tag that a chat template has opened."""
    text = prefix or (prompt if isinstance(prompt, str) else "")
    opening = "\n" if text.rstrip().endswith(OPENING) else f"{OPENING}\n"
    return f"{opening}{thought}\n</think>\n"

"""Prompt templates. ``base`` and ``chat`` correspond to TinyZero's two prompts."""

from dataclasses import dataclass

from reasonrl import Message
from reasonrl_countdown.generator import Instance

_OPENING = "Let me solve this step by step.\n<think>"

_INTRODUCTION = (
    "This is a dialogue between a User and an Assistant. Asked a question, the Assistant first reasons about "
    "it privately and then tells the User the answer."
)

_SYSTEM = "You are a helpful assistant. You reason about the problem first and then give the user the answer."


@dataclass(frozen=True, slots=True)
class Rendered:
    """A prompt, its assistant prefix, and the start of a completion that follows it."""

    prompt: str | tuple[Message, ...]
    assistant_prefix: str
    lead: str


def render(template: str, instance: Instance) -> Rendered:
    """Render an instance with the ``base``, ``chat`` or ``compact`` template."""
    if template == "compact":
        shown = " ".join(map(str, instance.numbers))
        return Rendered(f"Numbers: {shown}. Target: {instance.target}.\n", "<think>\n", "")
    question = _question(instance)
    if template == "chat":
        messages = (Message(role="system", content=_SYSTEM), Message(role="user", content=question))
        return Rendered(messages, _OPENING, "\n")
    return Rendered(f"{_INTRODUCTION}\nUser: {question}\nAssistant:", f" {_OPENING}", "\n")


def _question(instance: Instance) -> str:
    return (
        f"Using the numbers {list(instance.numbers)}, write an expression that equals {instance.target}. "
        "The operations +, -, * and / and parentheses are allowed; every number must be used exactly once. "
        "Put your reasoning in <think> </think> tags and the final expression in <answer> </answer> tags, "
        "for example <answer> (1 + 2) / 3 </answer>."
    )

"""Render a task's turns so that the tokens before them stay as they are, and find templates that would change them."""

from collections.abc import Sequence
from typing import Literal

from reasonrl.contracts.data import Message, Problem, Turn
from reasonrl.data.render import PromptRenderer, RenderedPrompt, check_encodable, opens_tag
from reasonrl.errors import RecipeError

History = Literal["stop", "keep"]
"""What becomes of messages that a chat template would change: the run is refused, or they stay as they were sampled."""
_PROBE, _THOUGHT = "reasonrl-reply-probe", "reasonrl-thought-probe"
_SHOWN = 40
MAX_TURN_CHARS = 1_000_000
"""More are not encoded, which takes seconds for each message."""


class TurnRenderer:
    """Renders turns with the chat template of a prompt renderer.

    A turn is what the template writes between the end of the model's message and the point where the model continues.
    It is encoded by itself and appended: earlier tokens are never encoded again.
    """

    def __init__(self, renderer: PromptRenderer) -> None:
        self._renderer = renderer

    def render(self, problem: Problem, turn: Turn, ended_by: int | None) -> RenderedPrompt:
        """Return the text and tokens of ``turn``.

        Args:
            ended_by: The EOS token that ended the model's message; None if a stop string did. The template's own
                end of the message is left out where it is that token.

        Raises:
            RecipeError: If the turn has not the form of the prompt, is empty, or cannot be rendered.
        """
        text = self._text(problem, turn, ended_by)
        where = f"the turn of problem {problem.id!r}"
        if len(text) > MAX_TURN_CHARS:
            raise RecipeError(f"{where} has {len(text):,} characters, expected at most {MAX_TURN_CHARS:,}; shorten it")
        check_encodable(where, text)
        ids = self._renderer.encode_turn(text)
        if not ids:
            raise RecipeError(f"{where} is empty; expected text, or None to end the conversation")
        self._renderer.check_tokens(ids, where)
        return RenderedPrompt(text, ids)

    def _text(self, problem: Problem, turn: Turn, ended_by: int | None) -> str:
        if isinstance(turn.content, str) is not isinstance(problem.prompt, str):
            raise RecipeError(
                f"the turn of problem {problem.id!r} is {_form(turn.content)}, but its prompt is "
                f"{_form(problem.prompt)}; both must have one form"
            )
        if isinstance(turn.content, str):
            return turn.content
        said = Message(role="assistant", content=_PROBE)
        whole = self._renderer.apply(problem, (said, *self._folded(turn.content)))
        _, found, after = whole.rpartition(_PROBE)
        if not found:
            raise RecipeError(
                f"{self._renderer.name} leaves out the model's messages; use another one with "
                "model.chat_template=FILE.jinja"
            )
        if ended_by is not None:
            after = after.removeprefix(self.decode(ended_by))
        return after

    def decode(self, token: int) -> str:
        """Return the text of one token, a special one included."""
        text: str = self._renderer.tokenizer.decode(
            [token], skip_special_tokens=False, clean_up_tokenization_spaces=False
        )
        return text

    def _folded(self, messages: Sequence[Message]) -> list[Message]:
        """Let a user say what a tool says, where the template knows no tools."""
        return [
            Message(role="user", content=m.content) if m.role == "tool" and self._renderer.folds_tools else m
            for m in messages
        ]

    def find_rewriting(self, problem: Problem, role: str = "user") -> str:
        """Say how the template changes the model's earlier messages once a turn of ``role`` follows; empty if not."""
        if isinstance(problem.prompt, str):
            return ""
        opened = self._renderer.apply(problem, ())
        thinking = f"{_THOUGHT}\n</think>\n\n" if opens_tag(opened) else f"<think>\n{_THOUGHT}\n</think>\n\n"
        turn = self._folded([Message(role=role, content="and?")])  # type: ignore[arg-type]
        for content in (_PROBE, thinking + _PROBE):
            said: list[Message] = []
            before = opened
            for _ in range(2):
                said += [Message(role="assistant", content=content), *turn]
                after = self._renderer.apply(problem, said)
                if not _continues(after, before, content):
                    return _difference(after, before + content)
                before = after
        return ""


def refuse_rewriting(renderer: PromptRenderer, history: History, problem: Problem, role: str) -> None:
    """Refuse a chat template that changes the model's earlier messages once a turn of ``role`` follows, unless kept.

    Raises:
        RecipeError: Saying what it changes, and the ways out.
    """
    if history == "keep":
        return
    if found := TurnRenderer(renderer).find_rewriting(problem, role):
        raise RecipeError(
            f"problem {problem.id!r}: {renderer.name} {found} once another message follows, so in use the model would "
            "not see the tokens it was trained with; set model.chat_template=FILE.jinja to one that keeps them, or "
            "sampling.rewritten_history=keep to train with every message as it was sampled"
        )


def _continues(after: str, before: str, content: str) -> bool:
    """Whether ``after`` begins with what the model saw and wrote; a space between the two is none of its tokens."""
    return after.startswith(before) and after[len(before) :].lstrip(" ").startswith(content)


def _difference(after: str, sampled: str) -> str:
    if _THOUGHT in sampled and _THOUGHT not in after:
        return "drops the thinking of earlier messages"
    at = next((i for i, (a, b) in enumerate(zip(after, sampled, strict=False)) if a != b), len(after))
    return f"changes earlier messages: {sampled[at : at + _SHOWN]!r} becomes {after[at : at + _SHOWN]!r}"


def _form(content: object) -> str:
    return "raw text" if isinstance(content, str) else "a tuple of messages"

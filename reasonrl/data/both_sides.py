"""Conversations to imitate, as the tokens that sampling would have made of them."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import TypeGuard

from reasonrl.contracts.data import Message, Problem, Turn
from reasonrl.data.render import PromptRenderer, RenderedPrompt, check_encodable
from reasonrl.data.turns import History, TurnRenderer, refuse_rewriting

Conversation = tuple[Message, ...]
"""What follows a prompt: the model's messages, the first and the last one among them, and replies between them."""
CONVERSATION = "messages that begin and end with the assistant's, with a reply between two of them"


def is_conversation(value: object) -> TypeGuard[Conversation]:
    """Whether it is a tuple of messages in the order of a conversation."""
    if not isinstance(value, tuple) or not value or not all(isinstance(one, Message) for one in value):
        return False
    is_own = [one.role == "assistant" for one in value]
    return is_own[0] and is_own[-1] and not any(a and b for a, b in pairwise(is_own))


class BothSides:
    """Encodes conversations: every message of the model by itself, then the turn that replies to it.

    Args:
        with_eos: Ends the tokens of a message with an EOS.
        stop: Strings that end a message; where one does, no EOS follows, except after the last message.
        history: What happens where the chat template changes earlier messages.
    """

    def __init__(
        self,
        renderer: PromptRenderer,
        with_eos: Callable[[list[int]], list[int]],
        *,
        stop: Sequence[str],
        history: History,
    ) -> None:
        self._renderer, self._turns = renderer, TurnRenderer(renderer)
        self._with_eos, self._stop, self._history = with_eos, tuple(stop), history
        self._is_checked = False

    def encode(
        self, problem: Problem, prompt: RenderedPrompt, conversation: Conversation
    ) -> tuple[list[int], list[bool]]:
        """Return the tokens after the prompt, and which of them are the model's.

        Raises:
            RecipeError: If a message cannot be encoded, or the chat template changes earlier ones.
        """
        ids: list[int] = []
        mask: list[bool] = []
        before = prompt
        for said, replies in _exchanges(conversation):
            self._check_history(problem, replies)
            is_stopped = bool(replies) and said.content.endswith(self._stop) and bool(self._stop)
            own = self._message(problem, before, said.content, is_stopped)
            ids, mask = ids + own, mask + [True] * len(own)
            if replies:
                before = self._turns.render(problem, _turn(problem, replies), None if is_stopped else own[-1])
                ids, mask = [*ids, *before.ids], mask + [False] * len(before.ids)
        return ids, mask

    def _message(self, problem: Problem, before: RenderedPrompt, content: str, is_stopped: bool) -> list[int]:
        where = f"a message of the model in problem {problem.id!r}"
        text = self._renderer.completion_after(before, problem, content)
        check_encodable(where, text)
        ids = list(self._renderer.encode_turn(text))
        self._renderer.check_tokens(ids, where)
        return ids if is_stopped else self._with_eos(ids)

    def _check_history(self, problem: Problem, replies: Sequence[Message]) -> None:
        """Look for rewriting once, at the first reply."""
        if replies and not self._is_checked:
            refuse_rewriting(self._renderer, self._history, problem, replies[0].role)
            self._is_checked = True


def _exchanges(conversation: Conversation) -> list[tuple[Message, list[Message]]]:
    """Each message of the model, and the replies to it."""
    found: list[tuple[Message, list[Message]]] = []
    for message in conversation:
        if message.role == "assistant":
            found.append((message, []))
        else:
            found[-1][1].append(message)
    return found


def _turn(problem: Problem, replies: Sequence[Message]) -> Turn:
    is_raw = isinstance(problem.prompt, str)
    return Turn(content="".join(reply.content for reply in replies) if is_raw else tuple(replies))

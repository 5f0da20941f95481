"""Whole conversations from a backend that only continues tokens.

Every round asks the backend for the model's next message in all open conversations, and the task for its replies. The
backend sees ordinary requests. Tokens that were sampled are never decoded and encoded again: the next request's prompt
is the earlier tokens and those of the task's turn.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

from reasonrl.contracts.data import (
    Completion,
    ContinueRequest,
    FinishReason,
    Message,
    RolloutGroup,
    RolloutRequest,
    Transcript,
    Turn,
)
from reasonrl.conversations.replies import Responder
from reasonrl.data.render import PromptRenderer, RenderedPrompt
from reasonrl.data.turns import TurnRenderer
from reasonrl.errors import RecipeError
from reasonrl.functional.randomness import derive_seed
from reasonrl.redact import WarnOnce, redacting_logger

log = redacting_logger(__name__)

FINISHED = (FinishReason.EOS, FinishReason.STOP_STRING)
"""Messages that the task replies to; at the token limit a conversation is over."""


class Samples(Protocol):
    """What the loop needs of a rollout backend."""

    def generate(self, requests: Sequence[RolloutRequest]) -> list[RolloutGroup]:
        """Answer the requests in order."""
        ...


class Together(Protocol):
    """The processes of a run, as the loop needs them: all sample equally often, and fail together."""

    def together(self) -> AbstractContextManager[None]:
        """Fail on every process if one fails."""
        ...

    def max(self, value: int) -> int:
        """The largest value of all processes."""
        ...


class Alone:
    """A process that samples for itself, such as in a thread, where collectives would mix with those of the update."""

    def together(self) -> AbstractContextManager[None]:
        """Fail alone."""
        return nullcontext()

    def max(self, value: int) -> int:
        """Return the value."""
        return value


@dataclass(frozen=True, kw_only=True, slots=True)
class Dialogue:
    """How a task takes part in conversations.

    ``max_turns`` limits the model's messages in each; ``role`` is that of the task's usual messages; ``close`` ends
    its processes, which end with this one at the latest.
    """

    responder: Responder
    max_turns: int
    role: Literal["user", "tool"] = "user"
    close: Callable[[], None] = lambda: None
    warn_once: WarnOnce = field(default_factory=lambda: WarnOnce(log), compare=False, repr=False)


@dataclass(slots=True)
class _Conversation:
    """One completion while it grows. The first message is in it from the start."""

    request: RolloutRequest
    sample: int
    first: Completion
    ids: list[int] = field(default_factory=list)
    mask: list[bool] = field(default_factory=list)
    logprobs: list[float] | None = field(default_factory=list)
    text: str = ""
    ended_by: int | None = None
    reason: FinishReason = FinishReason.EOS
    messages: list[Message] = field(default_factory=list)
    state: Mapping[str, Any] = field(default_factory=dict)
    tool_calls: Counter[str] = field(default_factory=Counter)
    turns: int = 0
    is_open: bool = False

    def hear(self, said: Completion) -> None:
        """Add the model's next message."""
        self.ids += said.token_ids
        self.mask += [True] * len(said.token_ids)
        self.logprobs = None if self.logprobs is None or said.logprobs is None else [*self.logprobs, *said.logprobs]
        self.text += said.text
        self.messages.append(Message(role="assistant", content=said.text))
        self.reason = said.finish_reason
        self.ended_by = said.token_ids[-1] if said.finish_reason is FinishReason.EOS and said.token_ids else None
        self.turns += 1
        self.is_open = said.finish_reason in FINISHED

    def tell(self, turn: RenderedPrompt, messages: Sequence[Message], eos: str) -> None:
        """Add the task's turn; ``eos`` is the text of the token that ended the model's message."""
        self.ids += turn.ids
        self.mask += [False] * len(turn.ids)
        self.logprobs = None if self.logprobs is None else [*self.logprobs, *[0.0] * len(turn.ids)]
        self.text += eos + turn.text
        self.messages += messages

    def transcript(self) -> Transcript:
        prompt = self.request.problem.prompt
        asked = (Message(role="user", content=prompt),) if isinstance(prompt, str) else prompt
        return Transcript(problem=self.request.problem, messages=(*asked, *self.messages), state=self.state)

    def next_request(self) -> ContinueRequest:
        request, sampling = self.request, self.request.sampling
        return ContinueRequest(
            problem=request.problem,
            prompt_ids=(*request.prompt_ids, *self.ids),
            prompt_text=request.prompt_text + self.text,
            group_size=1,
            sampling=replace(sampling, max_completion_tokens=sampling.max_completion_tokens - len(self.ids)),
            seed=derive_seed(request.seed, "turn", self.sample, self.turns),
            tokens_before=len(self.ids),
        )

    def completion(self) -> Completion:
        is_single = all(self.mask)
        return replace(
            self.first,
            token_ids=tuple(self.ids),
            logprobs=None if self.logprobs is None else tuple(self.logprobs),
            text=self.text,
            finish_reason=self.reason,
            sampled_mask=None if is_single else tuple(self.mask),
            messages=tuple(self.messages),
            state=self.state,
            tool_calls=dict(self.tool_calls),
        )


def converse(
    backend: Samples,
    requests: Sequence[RolloutRequest],
    renderer: PromptRenderer,
    ranks: Together,
    dialogue: Dialogue | None = None,
) -> list[RolloutGroup]:
    """Sample every request's group: as it comes without a dialogue, else until all its conversations are over.

    Every rank calls it, also without a request: it takes part in as many rounds as the others.
    """
    with ranks.together():
        groups = list(backend.generate(requests))
    if dialogue is None:
        return groups
    conversations = [list(_begin(request, group)) for request, group in zip(requests, groups, strict=True)]
    turns = TurnRenderer(renderer)
    still_open = [one for group in conversations for one in group if one.is_open]
    while True:
        with ranks.together():
            still_open = list(_reply(still_open, dialogue, turns))
        if not ranks.max(len(still_open)):
            break
        with ranks.together():
            answers = backend.generate([one.next_request() for one in still_open])
            for one, group in zip(still_open, answers, strict=True):
                one.hear(group.completions[0])
        still_open = [one for one in still_open if one.is_open]
    return [
        RolloutGroup(request=request, completions=tuple(one.completion() for one in group))
        for request, group in zip(requests, conversations, strict=True)
    ]


def _begin(request: RolloutRequest, group: RolloutGroup) -> Iterator[_Conversation]:
    for sample, completion in enumerate(group.completions):
        conversation = _Conversation(request=request, sample=sample, first=completion)
        conversation.hear(completion)
        yield conversation


def _reply(conversations: Sequence[_Conversation], dialogue: Dialogue, turns: TurnRenderer) -> Iterator[_Conversation]:
    """Let the task reply, and yield the conversations that continue.

    The task also sees the message that reaches the limit of turns, for its state; its turn is then dropped.
    """
    replies = dialogue.responder.respond([one.transcript() for one in conversations])
    for one, reply in zip(conversations, replies, strict=True):
        one.state = reply.state
        one.tool_calls.update(reply.tool_calls)
        if reply.has_failed:
            one.reason = FinishReason.ERROR
        elif reply.turn is not None and one.turns < dialogue.max_turns and _tell(one, reply.turn, dialogue, turns):
            yield one


def _tell(one: _Conversation, turn: Turn, dialogue: Dialogue, turns: TurnRenderer) -> bool:
    """Add the turn if there is room for it and for one token of the model's; otherwise cut the conversation there."""
    try:
        rendered = turns.render(one.request.problem, turn, one.ended_by)
    except RecipeError as err:  # no turn of a task may end a run
        dialogue.warn_once("turn", "%s; the completion stays unscored", err)
        one.reason = FinishReason.ERROR
        return False
    if len(one.ids) + len(rendered.ids) >= one.request.sampling.max_completion_tokens:
        one.reason = FinishReason.LENGTH
        return False
    said = (Message(role="user", content=turn.content),) if isinstance(turn.content, str) else turn.content
    one.tell(rendered, said, "" if one.ended_by is None else turns.decode(one.ended_by))
    return True

"""A problem in a chat: the task replies as in training, and what it says is shown."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from reasonrl.contracts.data import Completion, RolloutGroup, RolloutRequest, Transcript, Turn
from reasonrl.conversations.loop import Alone, Dialogue, converse
from reasonrl.conversations.replies import Reply, Responder
from reasonrl.data.render import PromptRenderer

Tell = Callable[[Turn], None]
"""Called with each turn of the task."""


class StreamingBackend:
    """The model of a chat, as the loop of conversations asks it."""

    def __init__(self, sample: Callable[[RolloutRequest], Completion]) -> None:
        self._sample = sample

    def generate(self, requests: Sequence[RolloutRequest]) -> list[RolloutGroup]:
        """Sample one completion of each request."""
        return [RolloutGroup(request=one, completions=(self._sample(one),)) for one in requests]


class _Shown:
    """Replies of another responder, each shown before the model continues."""

    def __init__(self, responder: Responder, max_turns: int, tell: Tell) -> None:
        self._responder, self._max_turns, self._tell = responder, max_turns, tell

    def respond(self, transcripts: Sequence[Transcript]) -> list[Reply]:
        """Reply to each transcript."""
        replies = self._responder.respond(transcripts)
        for transcript, reply in zip(transcripts, replies, strict=True):
            if reply.turn is not None and len(transcript.replies) < self._max_turns:
                self._tell(reply.turn)
        return replies


def solve(
    sample: Callable[[RolloutRequest], Completion],
    request: RolloutRequest,
    renderer: PromptRenderer,
    dialogue: Dialogue | None,
    tell: Tell,
) -> RolloutGroup:
    """Let the model answer a request, and the task reply until the conversation is over."""
    if dialogue is not None:
        dialogue = replace(dialogue, responder=_Shown(dialogue.responder, dialogue.max_turns, tell))
    (group,) = converse(StreamingBackend(sample), [request], renderer, Alone(), dialogue)
    return group

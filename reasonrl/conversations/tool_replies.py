"""Reply to tool calls with their results; to everything else as the task does."""

from collections import Counter
from collections.abc import Sequence

from reasonrl.contracts.data import Message, Transcript, Turn
from reasonrl.contracts.tools import Tools
from reasonrl.conversations.calls import find_calls, show_result
from reasonrl.conversations.replies import Reply, TaskReplies
from reasonrl.conversations.toolbox import Result, ToolPool


class ToolReplies:
    """Runs the calls of all open conversations together.

    A message without a call is left to the task's ``respond``; without one, it ends the conversation.
    """

    def __init__(self, tools: Tools, pool: ToolPool, otherwise: TaskReplies | None) -> None:
        self._tools, self._pool, self._otherwise = tools, pool, otherwise

    def respond(self, transcripts: Sequence[Transcript]) -> list[Reply]:
        """Reply to each transcript."""
        calls = [find_calls(self._tools, transcript.text) for transcript in transcripts]
        results = iter(self._pool.run([call for found in calls for call in found]))
        return [
            self._turn(transcript, [next(results) for _ in found]) if found else self._answer(transcript)
            for transcript, found in zip(transcripts, calls, strict=True)
        ]

    def _answer(self, transcript: Transcript) -> Reply:
        if self._otherwise is None:
            return Reply(turn=None, state=transcript.state)
        return self._otherwise.respond([transcript])[0]

    def _turn(self, transcript: Transcript, results: Sequence[Result]) -> Reply:
        texts = [result.text for result in results]
        content: str | tuple[Message, ...] = tuple(Message(role="tool", content=text) for text in texts)
        if isinstance(transcript.problem.prompt, str):
            content = "".join(show_result(self._tools, text) for text in texts)
        counts: Counter[str] = Counter(result.outcome for result in results)
        return Reply(turn=Turn(content=content), state=transcript.state, tool_calls=dict(counts))

"""What a task says to the model's messages, every answer of its ``respond`` checked."""

import json
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from reasonrl.contracts.clock import TooSlowError, limited_to
from reasonrl.contracts.data import Message, Transcript, Turn, is_message
from reasonrl.contracts.protocols import Task
from reasonrl.errors import RAISABLE, PluginContractError, check_returned, one_line, plugin_call
from reasonrl.redact import WarnOnce, redacting_logger

log = redacting_logger(__name__)

TURN = "a Turn of text, or of messages with text of the roles user, tool and system, or None"
RESPOND_S = 5.0
"""Seconds for one reply, where no recipe says otherwise."""


class LateReplyError(PluginContractError):
    """A task's ``respond`` took too long."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Reply:
    """A turn, or None where the conversation is over; the task's state, and its tool calls by outcome.

    ``has_failed``: there is no reply; the completion is not scored.
    """

    turn: Turn | None
    state: Mapping[str, Any]
    tool_calls: Mapping[str, int] = field(default_factory=dict)
    has_failed: bool = False


class Responder(Protocol):
    """Answers the open conversations of a round, in order."""

    def respond(self, transcripts: Sequence[Transcript]) -> list[Reply]:
        """Reply to each transcript."""
        ...


class TaskReplies:
    """A task's ``respond``. One that raises, hangs or returns nonsense ends that conversation unscored; logged once."""

    def __init__(
        self, task: Task, name: str, *, timeout_s: float = RESPOND_S, warn_once: WarnOnce | None = None
    ) -> None:
        self._task, self._name, self._timeout_s = task, name, timeout_s
        self._warn_once = warn_once or WarnOnce(log)

    def respond(self, transcripts: Sequence[Transcript]) -> list[Reply]:
        """Reply to each transcript."""
        return [self._reply(transcript) for transcript in transcripts]

    def _reply(self, transcript: Transcript) -> Reply:
        try:
            return ask_task(self._task, self._name, transcript, self._timeout_s)
        except LateReplyError as err:
            self._warn_once("late", "%s; the completion stays unscored", err)
        except RAISABLE as err:  # what the model wrote must not end a run
            raised = err.__cause__ if isinstance(err, PluginContractError) else err
            self._warn_once(("respond", type(raised)), "%s; the completion stays unscored", one_line(err), error=raised)
        return Reply(turn=None, state=transcript.state, has_failed=True)


class PersonReplies:
    """A person on the other side. ``ask`` gets the model's message, returns the reply; None ends the conversation."""

    def __init__(self, ask: Callable[[str], str | None]) -> None:
        self._ask = ask

    def respond(self, transcripts: Sequence[Transcript]) -> list[Reply]:
        """Ask for a reply to each transcript; to raw text it is a line."""
        return [self._reply(transcript) for transcript in transcripts]

    def _reply(self, transcript: Transcript) -> Reply:
        said = self._ask(transcript.text)
        if said is None:
            return Reply(turn=None, state=transcript.state)
        is_raw = isinstance(transcript.problem.prompt, str)
        return Reply(
            turn=Turn(content=f"{said}\n" if is_raw else (Message(role="user", content=said),)), state=transcript.state
        )


def ask_task(task: Task, name: str, transcript: Transcript, timeout_s: float = RESPOND_S) -> Reply:
    """Call ``task.respond(transcript)`` and validate the result.

    Raises:
        LateReplyError: If it takes over ``timeout_s`` seconds.
        PluginContractError: If it raises, or returns anything but a turn or None and a state of JSON values.
    """
    own = replace(
        transcript,
        problem=replace(transcript.problem, info=deepcopy(dict(transcript.problem.info))),
        state=deepcopy(dict(transcript.state)),
    )
    with plugin_call(f"task {name!r}: respond to problem {transcript.problem.id!r}") as call:
        try:
            with limited_to(timeout_s, "all"):
                answer = task.respond(own)  # type: ignore[attr-defined]
        except TooSlowError as err:
            raise LateReplyError(f"{call} {err}; make it faster, or raise sampling.respond_timeout_s") from None
        is_pair = isinstance(answer, tuple) and len(answer) == 2
        check_returned(is_pair, call, answer, "a pair of a Turn or None, and a state")
        turn, state = answer
        check_returned(turn is None or is_turn(turn), f"{call}: the turn", turn, TURN)
        check_returned(isinstance(state, Mapping), f"{call}: the state", state, "a mapping of JSON values")
        return Reply(turn=turn, state=_as_json(state, call))


def is_turn(turn: object) -> bool:
    """Whether it is a Turn with text or a tuple of messages, none of them the model's."""
    if not isinstance(turn, Turn):
        return False
    said = turn.content
    return isinstance(said, str) or (
        isinstance(said, tuple) and all(is_message(one) and one.role != "assistant" for one in said)
    )


def _as_json(state: Mapping[str, Any], call: str) -> dict[str, Any]:
    """Return a copy that shares nothing with the task, as a checkpoint would give it back."""
    try:
        copied: dict[str, Any] = json.loads(json.dumps(dict(state)))
    except (TypeError, ValueError, RecursionError) as err:
        raise PluginContractError(f"{call} returned a state that is not JSON: {err}") from err
    return copied

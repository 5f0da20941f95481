"""Checks of tasks that reply to the model or offer tools: whatever it writes, alike everywhere."""

from __future__ import annotations

import json
import pickle
import random
from collections.abc import Iterator, Sequence
from dataclasses import replace

from reasonrl.contracts.data import Message, Problem, Transcript
from reasonrl.contracts.protocols import Task
from reasonrl.conversations.replies import Reply, ask_task
from reasonrl.data.tools import fetch_tools, with_tools
from reasonrl.testing.checks import CheckError, NotApplicableError, require
from reasonrl.testing.hostile import HOSTILE_TEXTS

MESSAGES = ("1", "I do not know.", "7\n", *HOSTILE_TEXTS)
"""What the model writes in the checks, one conversation after the other."""
MAX_TURNS = 3


def conversations(task: Task, name: str, problems: Sequence[Problem]) -> Iterator[tuple[Transcript, Reply]]:
    """Play a conversation with every message of ``MESSAGES``, and yield each transcript and its reply."""
    if getattr(task, "respond", None) is None:
        raise NotApplicableError("the task has no respond")
    for index, text in enumerate(MESSAGES):
        problem = problems[index % len(problems)]
        prompt = problem.prompt
        asked = (Message(role="user", content=prompt),) if isinstance(prompt, str) else prompt
        transcript = Transcript(problem=problem, messages=(*asked, Message(role="assistant", content=text)))
        for _ in range(MAX_TURNS):
            reply = ask_task(task, name, transcript)
            yield transcript, reply
            if reply.turn is None:
                break
            transcript = _continued(transcript, reply, text)


def _continued(transcript: Transcript, reply: Reply, text: str) -> Transcript:
    assert reply.turn is not None
    content = reply.turn.content
    turn = (Message(role="user", content=content),) if isinstance(content, str) else content
    said = Message(role="assistant", content=text)
    return replace(transcript, messages=(*transcript.messages, *turn, said), state=reply.state)


def check_replies(task: Task, name: str, problems: Sequence[Problem]) -> None:
    """Require turns in the form of the prompt, with text in them."""
    for transcript, reply in conversations(task, name, problems):
        if reply.turn is None:
            continue
        where = f"respond to {transcript.text[:20]!r}"
        said, prompt = reply.turn.content, transcript.problem.prompt
        has_form = isinstance(said, str) is isinstance(prompt, str)
        require(
            has_form, f"{where}: the turn must be {'text' if isinstance(prompt, str) else 'messages'}, as the prompt"
        )
        require(bool(said), f"{where}: the turn is empty; None ends the conversation")


def check_purity(task: Task, other: Task, name: str, problems: Sequence[Problem]) -> None:
    """Require the same replies of the same object, in another order and of a new object."""
    state = random.getstate()
    played = list(conversations(task, name, problems))
    untouched = random.getstate() == state
    random.setstate(state)
    require(untouched, "respond used the global random generator; derive a random.Random from the problem")
    for who, again in (("the same object", task), ("a new object", other)):
        for transcript, reply in reversed(played):
            same = _plain(ask_task(again, name, transcript)) == _plain(reply)
            require(same, f"{who} replies differently to {transcript.text[:20]!r} the second time")


def _plain(reply: Reply) -> str:
    return json.dumps([repr(reply.turn), dict(reply.state)], sort_keys=True)


def check_tools(task: Task, name: str, factory: object, config: object) -> None:
    """Require tools that have schemas, are the same each time, and can be built in a worker."""
    tools = fetch_tools(task, name)
    if tools is None:
        raise NotApplicableError("the task has no tools")
    again = fetch_tools(task, name)
    require(again is not None and list(again.names) == list(tools.names), "tools() differs between two calls")
    with_tools(task, name, Problem(id="check", prompt=(Message(role="user", content="?"),)))
    try:
        pickle.dumps((factory, config))
    except (pickle.PicklingError, AttributeError, TypeError) as err:
        raise CheckError(f"its tools cannot be built in a worker: factory or config cannot be pickled: {err}") from None

"""Tools: finding calls in whatever a model writes, and running them where they can do no harm."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import tools_plugin
from support.tools_plugin import ToolsConfig, ToolTask

from reasonrl import Message, Problem, Tools, Transcript
from reasonrl.conversations.build import open_dialogue
from reasonrl.conversations.calls import MAX_CALLS, find_calls
from reasonrl.conversations.loop import Dialogue
from reasonrl.data.render import PromptRenderer
from reasonrl.data.stream import fetch_problem
from reasonrl.plugins import Component
from reasonrl.testing.models import byte_tokenizer

STYLES = ("hermes", "fenced", "tag")


def tools(style: Any = "hermes") -> Tools:
    return ToolTask(ToolsConfig(style=style), None).tools()


def hermes(name: str, **arguments: Any) -> str:
    return f"<tool_call>\n{json.dumps({'name': name, 'arguments': arguments})}\n</tool_call>"


def call(style: str, name: str, content: str) -> str:
    return f"```{name}\n{content}\n```" if style == "fenced" else f"<{name}>{content}</{name}>"


@pytest.mark.parametrize(
    ("style", "text", "found"),
    [
        ("hermes", f"I add. {hermes('add', a=1, b=2)} so", [("add", {"a": 1, "b": 2}, "")]),
        (
            "hermes",
            hermes("add", a=1, b=2) + hermes("echo", text="x"),
            [("add", {"a": 1, "b": 2}, ""), ("echo", {"text": "x"}, "")],
        ),
        (
            "hermes",
            '<tool_call>{"name": "echo", "arguments": "{\\"text\\": \\"q\\"}"}</tool_call>',
            [("echo", {"text": "q"}, "")],
        ),
        ("hermes", "no call, <tool_response>or</tool_response> one", []),
        ("hermes", "<tool_call>{", [("", {}, "has no end")]),
        ("hermes", "<tool_call>{'name': 'add'}</tool_call>", [("", {}, "as JSON")]),
        ("hermes", "<tool_call>[1]</tool_call>", [("", {}, "as JSON")]),
        ("hermes", "<tool_call>" + "[" * 50_000 + "</tool_call>", [("", {}, "as JSON")]),
        ("hermes", hermes("rm"), [("", {}, "no tool 'rm'; there are: add, echo")]),
        ("hermes", hermes("add", a=1), [("add", {}, "missing a required argument: 'b'")]),
        ("hermes", hermes("add", a=1, b=2, c=3), [("add", {}, "unexpected keyword argument 'c'")]),
        ("hermes", '<tool_call>{"name": "add", "arguments": [1, 2]}</tool_call>', [("add", {}, "as a JSON object")]),
        ("hermes", '<tool_call>{"name": {"x": 1}}</tool_call>', [("", {}, "no tool")]),
        ("fenced", "Look:\n```echo\nprint(1)\n  x\n```\nso", [("echo", {"text": "print(1)\n  x"}, "")]),
        ("fenced", "```echo\n```", [("echo", {"text": ""}, "")]),
        ("fenced", '```add\n{"a": 1, "b": 2}\n```', [("add", {"a": 1, "b": 2}, "")]),
        ("fenced", "```add\n1, 2\n```", [("add", {}, "a JSON object with a, b")]),
        ("fenced", "```python\nx\n```", []),
        ("fenced", "```echo\nx", [("echo", {}, "has no end")]),
        ("tag", "so <echo> 3 * 4 </echo>", [("echo", {"text": "3 * 4"}, "")]),
        ("tag", "<echo>a</echo><echo>b</echo>", [("echo", {"text": "a"}, ""), ("echo", {"text": "b"}, "")]),
        ("tag", "<echo>a", [("echo", {}, "has no end")]),
        ("tag", "<other>a</other>", []),
    ],
)
def test_calls_are_found(style: str, text: str, found: list[tuple[str, Any, str]]) -> None:
    calls = find_calls(tools(style), text)
    assert [(one.name, one.arguments) for one in calls] == [(name, arguments) for name, arguments, _ in found]
    for one, (_, _, problem) in zip(calls, found, strict=True):
        assert bool(problem) == bool(one.problem)
        assert problem in one.problem


@given(st.text('<>/`\n{}[]":,abdehopc_tlrs1 ', max_size=60), st.sampled_from(STYLES))
@settings(max_examples=200, deadline=None)
def test_whatever_a_model_writes_is_read(text: str, style: str) -> None:
    for written in (text, f"<tool_call>{text}</tool_call>", f"```add\n{text}\n```", f"<add>{text}</add>"):
        for one in find_calls(tools(style), written):
            assert one.problem or one.name in tools().names


def test_a_flood_of_calls_is_cut() -> None:
    calls = find_calls(tools(), hermes("echo", text="x") * 1000)
    assert len(calls) == MAX_CALLS + 1
    assert "more than" in calls[-1].problem


@pytest.fixture(scope="module")
def dialogue() -> Iterator[Dialogue]:
    made = opened()
    yield made
    made.close()


def opened(**options: Any) -> Dialogue:
    config = ToolsConfig(**options)
    component = Component(spec=tools_plugin.SPEC, config=config)
    made = open_dialogue(ToolTask(config, None), component, seed=0, max_turns=8)
    assert made is not None
    return made


def said(*texts: str, chat: bool = False) -> list[Transcript]:
    prompt: Any = (Message(role="user", content="?"),) if chat else "?"
    asked = Message(role="user", content="?")
    problem = Problem(id="p", prompt=prompt)
    return [Transcript(problem=problem, messages=(asked, Message(role="assistant", content=t))) for t in texts]


BAD = {
    hermes("boom", text="no"): ("raised", "error: ValueError: no"),
    hermes("add", a=1, b=[]): ("raised", "error: TypeError: unsupported operand"),
    hermes("misbehave", how="hang"): ("lost", "error: timed out after 1 s"),
    hermes("misbehave", how="exit"): ("lost", "error: worker died (exit 3)"),
    hermes("misbehave", how="sys_exit"): ("raised", "error: SystemExit: 0"),
    hermes("misbehave", how="interrupt"): ("raised", "error: KeyboardInterrupt"),
    hermes("misbehave", how="deep"): ("raised", "error: RecursionError"),
    hermes("misbehave", how="unprintable"): ("raised", "error: RuntimeError: no text"),
    hermes("misbehave", how="huge"): ("cut", "x" * 50 + "... (cut after 50 characters)"),
    hermes("misbehave", how="noted"): ("raised", "error: ValueError: no way\n"),
    hermes("misbehave", how="grouped"): ("raised", "error: ExceptionGroup: several (2 sub-exceptions)\n"),
    hermes("misbehave", how="nameless"): ("raised", "error: _Nameless\n"),
    hermes("misbehave", how="untraceable"): ("raised", "error: AttributeError: property"),
    hermes("misbehave", how="nul"): ("ok", "a\0\n"),
    hermes("echo", text="a\ud800b"): ("ok", "a?b"),
    hermes("boom", text="a\udfffb"): ("raised", "error: ValueError: a\\udfffb"),
    hermes("rm", **{"\ud800": "\ud800"}): ("malformed", "error: there is no tool 'rm'"),
    hermes("\ud800"): ("malformed", "error: there is no tool '\\ud800'"),
    hermes("rm"): ("malformed", "error: there is no tool 'rm'"),
    "<tool_call>": ("malformed", "error: the call has no end"),
}


def test_a_call_that_fails_becomes_a_turn_that_says_so(dialogue: Dialogue) -> None:
    """All at once, between good ones; the workers that are lost are replaced."""
    good = hermes("add", a=1, b=2)
    replies = dialogue.responder.respond(said(good, *BAD, good, "no call"))
    for reply, (outcome, text) in zip(replies[1:-2], BAD.values(), strict=True):
        assert reply.tool_calls == {outcome: 1}
        assert reply.turn is not None
        assert f"<tool_response>\n{text}" in str(reply.turn.content)
        assert not reply.has_failed
    for reply in (replies[0], replies[-2]):
        assert reply.turn is not None
        assert reply.turn.content == "\n<tool_response>\n3\n</tool_response>\n"
    assert (replies[-1].turn, replies[-1].tool_calls) == (None, {})


def test_results_are_messages_of_a_tool_in_a_chat(dialogue: Dialogue) -> None:
    both = hermes("echo", text="é") + "<tool_call>x</tool_call>"
    (reply,) = dialogue.responder.respond(said(both, chat=True))
    assert reply.turn is not None
    assert [m.role for m in reply.turn.content] == ["tool", "tool"]  # type: ignore[union-attr]
    assert reply.turn.content[0].content == "é"  # type: ignore[union-attr]
    assert reply.tool_calls == {"ok": 1, "malformed": 1}


def test_the_task_replies_to_what_is_no_call() -> None:
    made = opened(replies=True)
    (reply,) = made.responder.respond(said("hm"))
    made.close()
    assert reply.turn is not None
    assert reply.turn.content == "call a tool"


def test_a_chat_template_shows_the_schemas() -> None:
    task = ToolTask(ToolsConfig(chat=True), None)
    problem = fetch_problem(task, "tools", "train", 0)
    assert [one["function"]["name"] for one in problem.tools] == ["add", "echo", "boom", "misbehave"]
    assert problem.tools[0]["function"]["parameters"]["properties"]["a"] == {
        "type": "integer",
        "description": "the first.",
    }
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = "{% for t in tools %}{{ t.function.description }}|{% endfor %}{{ messages[0].content }}"
    assert (
        PromptRenderer(tokenizer).text(problem)
        == "Add two numbers.|Say it again.|Raise.|Do what a tool must not do.|train 0?"
    )
    assert fetch_problem(ToolTask(ToolsConfig(), None), "tools", "train", 0).tools == ()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"functions": ()}, "at least one"),
        ({"functions": (len, len)}, "different names"),
        ({"style": "xml"}, "style"),
        ({"timeout_s": 0}, "timeout_s"),
        ({"functions": (lambda text: text,)}, "identifiers"),
        ({"functions": iter((len,))}, "a tuple"),
        ({"max_chars": 0}, "max_chars"),
        ({"max_chars": 5.5}, "max_chars"),
        ({"memory_mb": 2**70}, "memory_mb"),
        ({"result": 5}, "result"),
        ({"result": "x"}, "{result}"),
    ],
)
def test_tools_out_of_range_are_refused(fields: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Tools(**{"functions": (len,), **fields})

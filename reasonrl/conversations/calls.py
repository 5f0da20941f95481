"""Find tool calls in what a model wrote, and write their results. Nothing here runs a tool."""

import inspect
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from reasonrl.contracts.tools import Tools

MAX_CALLS = 8
"""Calls of one message that are run; more are refused."""
MAX_CALL_CHARS = 100_000
_HERMES = ("<tool_call>", "</tool_call>")
_RESULTS = {
    "hermes": "\n<tool_response>\n{result}\n</tool_response>\n",
    "fenced": "\n```output\n{result}\n```\n",
    "tag": "<result>{result}</result>\n",
}


@dataclass(frozen=True, slots=True)
class Call:
    """A call of a tool. ``problem``: why it cannot be run; empty if it can."""

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    problem: str = ""


def find_calls(tools: Tools, text: str) -> list[Call]:
    """Return the calls in the order of the text, those that are malformed included."""
    calls: list[Call] = []
    for name, content in _blocks(tools, text):
        if len(calls) == MAX_CALLS:
            calls.append(Call(name, problem=f"more than {MAX_CALLS} calls in one message"))
            break
        calls.append(_read(tools, name, content))
    return calls


def show_result(tools: Tools, result: str) -> str:
    """Return a result as raw-text prompts show it."""
    return (tools.result or _RESULTS[tools.style]).replace("{result}", result)


def _blocks(tools: Tools, text: str) -> Iterator[tuple[str, str | None]]:
    """Yield the tool's name, if the markup says it, and the content of each call; None where it has no end."""
    openings, at = _openings(tools), 0
    while found := openings.search(text, at):
        name = found["name"] if tools.style != "hermes" else ""
        close = _HERMES[1] if tools.style == "hermes" else f"</{name}>" if tools.style == "tag" else "\n```"
        start = found.end()
        end = text.find(close, start - 1 if tools.style == "fenced" else start)
        if end < 0:
            yield name, None
            return
        yield name, text[start : max(start, end)]
        at = end + len(close)


def _openings(tools: Tools) -> re.Pattern[str]:
    if tools.style == "hermes":
        return re.compile(re.escape(_HERMES[0]))
    names = "|".join(sorted(map(re.escape, tools.names), key=len, reverse=True))
    form = r"<(?P<name>{})>" if tools.style == "tag" else r"^```(?P<name>{})[ \t]*\n"
    return re.compile(form.format(names), re.MULTILINE)


def _read(tools: Tools, name: str, content: str | None) -> Call:
    if content is None:
        return Call(name, problem="the call has no end")
    if len(content) > MAX_CALL_CHARS:
        return Call(name, problem=f"the call has {len(content)} characters, over the limit of {MAX_CALL_CHARS}")
    return _read_json(tools, content) if tools.style == "hermes" else _read_content(tools, name, content)


def _read_json(tools: Tools, content: str) -> Call:
    try:
        data = json.loads(content)
        name, arguments = data["name"], data.get("arguments", {})
        if isinstance(arguments, str):  # some models quote them
            arguments = json.loads(arguments)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return Call("", problem='expected {"name": ..., "arguments": {...}} as JSON')
    if not isinstance(name, str) or name not in tools.names:
        return Call("", problem=f"there is no tool {str(name)[:40]!r}; there are: {', '.join(tools.names)}")
    return _bind(tools, name, arguments)


def _read_content(tools: Tools, name: str, content: str) -> Call:
    parameters = list(inspect.signature(tools.names[name]).parameters)
    if len(parameters) == 1:
        return Call(name, {parameters[0]: content.strip("\n") if tools.style == "fenced" else content.strip()})
    try:
        return _bind(tools, name, json.loads(content))
    except (ValueError, RecursionError):
        return Call(name, problem=f"expected a JSON object with {', '.join(parameters)}")


def _bind(tools: Tools, name: str, arguments: object) -> Call:
    if not isinstance(arguments, dict):
        return Call(name, problem="expected the arguments as a JSON object")
    try:
        inspect.signature(tools.names[name]).bind(**arguments)
    except TypeError as err:
        return Call(name, problem=str(err)[:200])
    return Call(name, arguments)

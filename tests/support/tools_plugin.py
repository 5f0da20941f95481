"""A task with tools, good and bad."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from reasonrl import Message, Problem, Split, TaskSpec, Tools, Transcript, Turn, hookimpl


@dataclass(frozen=True)
class ToolsConfig:
    style: str = field(default="hermes", metadata={"help": "how tools are called"})
    chat: bool = field(default=False, metadata={"help": "prompts are messages"})
    replies: bool = field(default=False, metadata={"help": "the task replies to messages without a call"})


def add(a: int, b: int) -> int:
    """Add two numbers.

    Args:
        a: the first.
        b: the second.
    """
    return a + b


def echo(text: str) -> str:
    """Say it again.

    Args:
        text: what to say.
    """
    return text


def boom(text: str) -> str:
    """Raise.

    Args:
        text: the error.
    """
    raise ValueError(text)


def misbehave(how: str) -> Any:
    """Do what a tool must not do.

    Args:
        how: which of it.
    """
    if how == "hang":
        time.sleep(60)
    if how == "exit":
        os._exit(3)
    if how == "sys_exit":
        sys.exit(0)
    if how == "huge":
        return "x" * 10**7
    if how == "interrupt":
        raise KeyboardInterrupt
    if how == "deep":
        return misbehave("deep")
    if how == "unprintable":
        return _Unprintable()
    if how == "nul":
        return "a\0"
    if how in ERRORS:
        raise ERRORS[how]()
    return how


def _noted() -> Exception:
    error = ValueError("no\nway")
    error.add_note("a note")
    return error


class _NamelessKind(type):
    @property
    def __name__(cls) -> str:  # type: ignore[override]
        raise RuntimeError("no name")


class _Nameless(Exception, metaclass=_NamelessKind):
    """Its class does not say its name."""


class _Untraceable(Exception):
    @property
    def __traceback__(self) -> Any:
        raise RuntimeError("no traceback")


ERRORS: dict[str, Callable[[], BaseException]] = {
    "noted": _noted,
    "grouped": lambda: ExceptionGroup("several", [ValueError("a"), KeyError("b")]),
    "nameless": _Nameless,
    "untraceable": _Untraceable,
}


class _Unprintable:
    def __str__(self) -> str:
        raise RuntimeError("no text")


class ToolTask:
    def __init__(self, config: ToolsConfig, context: Any) -> None:
        self._config = config
        if config.replies:
            self.respond = self._respond

    def size(self, split: Split) -> int | None:
        return None

    def problem(self, split: Split, index: int) -> Problem:
        text = f"{split} {index}?"
        prompt: Any = (Message(role="user", content=text),) if self._config.chat else text
        return Problem(id=f"tools/{split}/{index}", prompt=prompt)

    def tools(self) -> Tools:
        return Tools(functions=(add, echo, boom, misbehave), style=self._config.style, timeout_s=1.0, max_chars=50)  # type: ignore[arg-type]

    def _respond(self, transcript: Transcript) -> tuple[Turn | None, dict[str, Any]]:
        return Turn(content="call a tool"), {}


SPEC = TaskSpec(name="tools", summary="Has tools.", config=ToolsConfig, factory="support.tools_plugin:ToolTask")


@hookimpl
def reasonrl_tasks() -> Iterable[TaskSpec]:
    yield SPEC

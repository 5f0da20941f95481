"""Errors that are as hard to handle as a plugin can make them."""

from __future__ import annotations

from collections.abc import Callable


def raising(*bases: type[BaseException], **members: object) -> BaseException:
    return type("Odd\x1b[31mName", bases or (Exception,), members)()


def no_text(self: object) -> str:
    raise KeyboardInterrupt


ODD: dict[str, Callable[[], BaseException]] = {
    "no text": lambda: raising(__str__=no_text, __repr__=no_text),
    "text is no text": lambda: raising(__str__=lambda self: 3),
    "escapes": lambda: ValueError("\x1b[2J\r\nline two\x07"),
    "exit": lambda: SystemExit(0),
    "exit with text": lambda: SystemExit("\x1b[31mgone"),
    "interrupt": KeyboardInterrupt,
    "other base": lambda: raising(BaseException),
    "odd notes": lambda: raising(__notes__=3),
    "no attributes": lambda: raising(__setattr__=no_text),
    "megabytes": lambda: ValueError("x" * 3_000_000),
    "memory": lambda: raising(MemoryError, __str__=no_text),
}

"""Standard output and error without secrets, whoever prints: a command, a library, a plugin."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TextIO, cast

from reasonrl.redact import redact_known


class RedactedStream:
    """A text stream that redacts what is written; everything else is that of ``stream``."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write ``text`` without secrets."""
        return self._stream.write(redact_known(text) if isinstance(text, str) else text)

    def writelines(self, lines: Iterator[str]) -> None:
        """Write every line without secrets."""
        for line in lines:
            self.write(line)


_results: ContextVar[TextIO | None] = ContextVar("results", default=None)


def print_json(data: object) -> None:
    """Print the result of a command as JSON; nothing else is on standard output then."""
    stream = _results.get() or sys.stdout
    stream.write(json.dumps(data, indent=2) + "\n")
    stream.flush()


@contextmanager
def redacted_output(*, has_json: bool = False) -> Iterator[None]:
    """Redact what is written to standard output and error inside.

    ``has_json``: whatever else is printed, by a plugin or a library, goes to standard error.
    """
    before = sys.stdout, sys.stderr
    if any(isinstance(stream, RedactedStream) or stream is None for stream in before):
        yield  # inside another command, or without streams
        return
    results, errors = (RedactedStream(stream) for stream in before)
    token = _results.set(cast(TextIO, results))
    sys.stdout, sys.stderr = errors if has_json else results, errors
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before
        _results.reset(token)

"""Standard output and error without secrets, whoever prints: a command, a library, a plugin."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

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


@contextmanager
def redacted_output() -> Iterator[None]:
    """Redact what is written to standard output and error inside."""
    before = sys.stdout, sys.stderr
    if any(isinstance(stream, RedactedStream) or stream is None for stream in before):
        yield  # inside another command, or without streams
        return
    sys.stdout, sys.stderr = map(RedactedStream, before)  # type: ignore[assignment]
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before

"""Text of models, plugins and paths for a page: without secrets, and without characters that hide or reorder it."""

from collections.abc import Mapping
from typing import Any

from reasonrl.redact import known_secrets, redact_text
from reasonrl.text import sanitize

MARGIN = 256
"""Characters read beyond a cut, so that a secret across it is still recognized."""
MAX_ITEMS = 100


def clean(text: str) -> str:
    """Redact secrets and escape risky characters; line breaks stay."""
    return sanitize(redact_text(text))


def left_out(count: int) -> str:
    """Return the note that replaces the middle of a long text."""
    return f"\n[... {count:,} characters left out ...]\n"


class Cleaner:
    """Cleans and shortens many texts. The secrets of the environment are looked up once."""

    def __init__(self) -> None:
        self._known = known_secrets()

    def shorten(self, text: str, head: int, tail: int = 0) -> str:
        """Clean ``text`` and keep its first ``head`` and last ``tail`` characters.

        Only these are read, so that a text of many megabytes costs no time.
        """
        if len(text) <= head + tail:
            return sanitize(self._redact(text))
        begin = self._redact(text[: head + MARGIN])[:head]
        end = self._redact(text[-tail - MARGIN :])[-tail:] if tail else ""
        return sanitize(f"{begin}{left_out(len(text) - head - tail)}{end}")

    def data(self, value: Any) -> Any:
        """Clean every text and key of JSON data, and shorten what is long."""
        if isinstance(value, Mapping):
            return {self.shorten(str(key), 200): self.data(item) for key, item in list(value.items())[:MAX_ITEMS]}
        if isinstance(value, list | tuple):
            return [self.data(item) for item in value[:MAX_ITEMS]]
        return self.shorten(value, 500) if isinstance(value, str) else value

    def _redact(self, text: str) -> str:
        return redact_text(text, self._known)

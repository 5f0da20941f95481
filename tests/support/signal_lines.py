"""A signal at a chosen line of a module."""

from __future__ import annotations

import itertools
import signal
import sys
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


@contextmanager
def signal_at(line: int, files: Collection[str], number: int = signal.SIGTERM) -> Iterator[list[str]]:
    """Send the signal when code of ``files`` runs its ``line``-th line; what is yielded says where it was."""
    lines, sent = itertools.count(), list[str]()

    def trace(frame: FrameType, event: str, _: Any) -> Callable[..., Any] | None:
        if frame.f_code.co_filename not in files:
            return None
        if event == "line" and next(lines) == line:
            sent.append(f"{frame.f_code.co_filename}:{frame.f_lineno}")
            signal.raise_signal(number)
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield sent
    finally:
        sys.settrace(before)

"""Tools that a task offers to the model. Torch-free."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

MAX_MEMORY_MB = 2**30
ToolStyle = Literal["hermes", "fenced", "tag"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Tools:
    """Typed Python functions that the model may call, and how it calls them.

    The docstring of each function describes it and its arguments (``Args:``), as transformers' ``get_json_schema``
    reads them; chat templates that know tools show the schemas. What a function returns is shown as text.

    ``style``: ``hermes`` calls with ``<tool_call>{"name": ..., "arguments": {...}}</tool_call>``; ``fenced`` with a
    fenced block whose language is the function's name; ``tag`` with a tag of the function's name, such as
    ``<calculate>3 * 4</calculate>``. In the last two the content is the function's only argument as text, or a JSON
    object of its arguments.

    Calls run in worker processes, which build the task anew: its factory and config must be importable. One that takes
    over ``timeout_s`` seconds is killed; a worker may address ``memory_mb`` MiB (Linux; None = no limit). Of a result
    the model sees ``max_chars`` characters. ``result`` is how raw-text prompts show one, with ``{result}`` in it; empty
    = as the style does.

    Raises:
        ValueError: if a field is out of range.
    """

    functions: tuple[Callable[..., Any], ...]
    style: ToolStyle = "hermes"
    timeout_s: float = 5.0
    memory_mb: int | None = 2048
    max_chars: int = 2_000
    result: str = ""

    def __post_init__(self) -> None:
        given = isinstance(self.functions, tuple | list) and all(map(callable, self.functions))
        if not given or not self.functions:
            raise ValueError("functions must be a tuple of at least one function")
        names = [getattr(function, "__name__", None) for function in self.functions]
        if wrong := [name for name in names if not isinstance(name, str) or not name.isidentifier()]:
            raise ValueError(f"functions must have names that are identifiers (def, or __name__), got {wrong[0]!r:.60}")
        if len(self.names) != len(self.functions):
            raise ValueError(f"functions must have different names, got {', '.join(map(str, names))}")
        if self.style not in ("hermes", "fenced", "tag"):
            raise ValueError(f"style must be hermes, fenced or tag, got {self.style!r}")
        if not 0 < self.timeout_s < math.inf:
            raise ValueError(f"timeout_s must be a number of seconds > 0, got {self.timeout_s!r}")
        if type(self.max_chars) is not int or not 1 <= self.max_chars <= 10_000:
            raise ValueError(f"max_chars must be an int in [1, 10000], got {self.max_chars!r}")
        if self.memory_mb is not None and (type(self.memory_mb) is not int or not 1 <= self.memory_mb <= MAX_MEMORY_MB):
            raise ValueError(f"memory_mb must be an int in [1, {MAX_MEMORY_MB}] or None, got {self.memory_mb!r:.60}")
        if not isinstance(self.result, str) or (self.result and "{result}" not in self.result):
            raise ValueError(f"result must contain {{result}}, got {self.result!r}")

    @property
    def names(self) -> dict[str, Callable[..., Any]]:
        """The functions by name."""
        return {function.__name__: function for function in self.functions}

"""Fields of config dataclasses: help texts and ranges."""

import os
from collections.abc import Callable
from dataclasses import MISSING, field
from typing import Any

from reasonrl.contracts.options import require

MANY = 10_000_000
"""More prompts, completions or tokens than one step or suite can have."""


def option(text: str, default: object = MISSING, *, factory: Callable[[], object] | None = None) -> Any:
    """A dataclass field with its help text."""
    if factory is not None:
        return field(default_factory=factory, metadata={"help": text})
    return field(default=default, metadata={"help": text})


def expand_user(config: object, name: str) -> None:
    """A leading ``~`` is the home folder, as a shell would have it."""
    path = os.path.expanduser(getattr(config, name))
    require(not path.startswith("~"), name, "a path; ~ is followed by / or by the name of a user", path)
    object.__setattr__(config, name, path)  # it is frozen


def at_least(config: object, low: int, *names: str) -> None:
    """Require each of these fields to be null or at least ``low``."""
    for name in names:
        value = getattr(config, name)
        require(value is None or value >= low, name, f">= {low}", value)


def at_most(config: object, high: int, *names: str) -> None:
    """Require each of these fields to be null or at most ``high``, beyond which a run could not even begin."""
    for name in names:
        value = getattr(config, name)
        require(value is None or value <= high, name, f"<= {high}", value)


def positive(config: object, *names: str) -> None:
    """Require each of these fields to be null or a finite number above 0."""
    for name in names:
        value = getattr(config, name)
        require(value is None or 0.0 < value < float("inf"), name, "> 0", value)

"""Fields of config dataclasses: help texts and ranges."""

import os
from collections.abc import Callable
from dataclasses import MISSING, field
from typing import Any

from reasonrl.contracts.options import require

MANY = 10_000_000
"""More prompts, completions or tokens than one step or suite can have."""

MAX_EPOCHS = 10_000
MIN_TEMPERATURE, MAX_TEMPERATURE = 1e-3, 1e3


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


def at_most(config: object, high: float, *names: str) -> None:
    """Require each of these fields to be null or at most ``high``, beyond which a run could not begin or never ends."""
    for name in names:
        value = getattr(config, name)
        require(value is None or value <= high, name, f"<= {high}", value)


def learning_rate(config: object) -> None:
    """Require ``learning_rate`` to be null or a positive number that float32 holds."""
    positive(config, "learning_rate")
    at_most(config, 1e38, "learning_rate")


def temperature(value: float, *, or_zero: bool = False) -> None:
    """Require a temperature that logits can be divided by in float32 without becoming infinite or all the same."""
    expected = f"{'0, or ' if or_zero else ''}in [{MIN_TEMPERATURE:g}, {MAX_TEMPERATURE:g}]"
    is_good = MIN_TEMPERATURE <= value <= MAX_TEMPERATURE or (or_zero and value == 0)
    require(is_good, "temperature", expected, value)


def positive(config: object, *names: str) -> None:
    """Require each of these fields to be null or a finite number above 0."""
    for name in names:
        value = getattr(config, name)
        require(value is None or 0.0 < value < float("inf"), name, "> 0", value)

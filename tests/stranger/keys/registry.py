"""Which function observes the effect of which recipe key."""

import importlib
from collections.abc import Callable
from pathlib import Path

from stranger.lab import Lab

Observe = Callable[[Lab, str], None]
PROBES: dict[tuple[str, str], Observe] = {}
"""(kind of recipe or component, key) -> the function that asserts the key's effect on what a run leaves."""

BOTH = ("train", "sft")


def effect(*keys: str, of: tuple[str, ...] = ("train",)) -> Callable[[Observe], Observe]:
    """Register a function ``(lab, kind)`` for these keys of these kinds."""

    def register(function: Observe) -> Observe:
        for kind in of:
            for key in keys:
                assert (kind, key) not in PROBES, f"{kind} {key} is observed twice"
                PROBES[kind, key] = function
        return function

    return register


def load_all() -> None:
    """Import every module of this folder, so that ``PROBES`` is whole."""
    for file in sorted(Path(__file__).parent.glob("*.py")):
        importlib.import_module(f"stranger.keys.{file.stem}")

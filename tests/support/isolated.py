"""Short ways to isolated rewards, and to what they left on the machine."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from support.builders import Direct, Slot, completion, group
from support.misbehaving import FINE, MARKER, Behavior, Misbehaving

from reasonrl import NoConfig, RewardContext, RewardOutput, RewardSpec, RolloutGroup
from reasonrl.redact import WarnOnce
from reasonrl.rewards.runner import RewardRunner


def isolated(
    behavior: Callable[..., Any] | None = None,
    *,
    factory: Any = Misbehaving,
    config: Any = None,
    warn_once: WarnOnce | None = None,
    **limits: Any,
) -> RewardRunner:
    """A runner of one reward, ``r``, in worker processes. ``behavior``: a function of ``misbehaving``."""
    if behavior is not None:
        config = Behavior(behavior.__name__)
    config = NoConfig() if config is None else config
    spec = RewardSpec(name="r", summary="r", factory=factory, config=type(config), isolation="process", **limits)
    return RewardRunner.build({"r": Slot(spec, config=config)}, Direct(), RewardContext(), warn_once)


def inline(behavior: Callable[..., Any]) -> RewardRunner:
    """The same in this process."""
    spec = RewardSpec(name="r", summary="r", factory=Misbehaving, config=Behavior)
    return RewardRunner.build({"r": Slot(spec, config=Behavior(behavior.__name__))}, Direct(), RewardContext())


def wait_until(condition: Callable[[], bool], limit_s: float = 10.0) -> bool:
    """Whether it comes true in time."""
    end = time.monotonic() + limit_s
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    return condition()


def texts(*given: str, **info: Any) -> RolloutGroup:
    """A group of completions with these texts."""
    return group([completion(text=text) for text in given], **info)


def reasons(outputs: tuple[RewardOutput, ...]) -> list[str]:
    return [output.reasons.get("r", "") for output in outputs]


def strays() -> list[int]:
    """Process ids of what misbehaving rewards have started and left."""
    return [pid for pid, command in _processes() if MARKER.encode() in command]


def zombies() -> list[int]:
    """Children of this process that have ended and were not laid to rest."""
    found = []
    for pid, _ in _processes():
        with contextlib.suppress(OSError):
            state, parent = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:2]
            if state == "Z" and int(parent) == os.getpid():
                found.append(pid)
    return found


def is_alive(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    return False


def _processes() -> Iterator[tuple[int, bytes]]:
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            yield int(folder.name), (folder / "cmdline").read_bytes()


__all__ = ["FINE", "inline", "is_alive", "isolated", "reasons", "strays", "texts", "wait_until", "zombies"]

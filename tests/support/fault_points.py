"""Every file-system call that is made below a folder, counted; at a chosen one something happens."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import safetensors.torch

# What CPython tells its audit hooks before it does it.
EVENTS = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.scandir", "os.listdir", "os.truncate"}


class FaultPoints:
    """Counts the calls on paths that contain ``mark`` and asks ``action`` what to do at each.

    Opening, making, renaming, listing and deleting are seen by an audit hook, so the libraries' own calls count
    too; syncing and writing tensors by wrappers.
    """

    def __init__(self) -> None:
        self.count = 0
        self._mark = ""
        self._action: Callable[[int], None] | None = None
        self._is_installed = False

    @contextmanager
    def acting(self, mark: str, action: Callable[[int], None]) -> Iterator[FaultPoints]:
        """Call ``action(n)`` before the n-th call, from 1; what it raises is what the call raises."""
        self._install()
        self.count, self._mark, self._action = 0, mark, action
        try:
            yield self
        finally:
            self._action = None

    def reached(self) -> None:
        action = self._action
        if action is None:
            return
        self._action = None  # what the action itself does is not counted
        self.count += 1
        try:
            action(self.count)
        finally:
            self._action = action

    def _install(self) -> None:
        if self._is_installed:
            return  # an audit hook cannot be removed
        self._is_installed = True
        sys.addaudithook(self._hook)
        os.fsync = self._wrapped(os.fsync)  # type: ignore[assignment]
        safetensors.torch.serialize_file = self._wrapped(safetensors.torch.serialize_file)

    def _wrapped(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(*args: Any, **options: Any) -> Any:
            self.reached()
            return call(*args, **options)

        return wrapper

    def _hook(self, event: str, args: tuple[Any, ...]) -> None:
        if self._action is not None and event in EVENTS and self._mark in _path(event, args):
            self.reached()


def _path(event: str, args: tuple[Any, ...]) -> str:
    path = args[0]
    handle = args[-1] if event in ("os.remove", "os.rmdir") else -1
    if isinstance(handle, int) and handle >= 0:  # shutil.rmtree names files relative to an open folder
        return f"{os.readlink(f'/proc/self/fd/{handle}')}/{path}"
    if isinstance(path, int):
        return os.readlink(f"/proc/self/fd/{path}") if event != "open" else ""
    return os.fsdecode(path) if path is not None else ""


def kill_at(n: int) -> Callable[[int], None]:
    """This process dies, as by a power cut, before call ``n``."""

    def action(count: int) -> None:
        if count == n:
            os.kill(os.getpid(), signal.SIGKILL)

    return action


def fail_at(n: int, errno: int, *, persistently: bool) -> Callable[[int], None]:
    """Call ``n``, and with ``persistently`` every one after it, fails with ``errno``."""

    def action(count: int) -> None:
        if count == n or (persistently and count > n):
            raise OSError(errno, os.strerror(errno))

    return action


POINTS = FaultPoints()

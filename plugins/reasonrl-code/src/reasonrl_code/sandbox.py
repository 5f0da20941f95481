"""Run untrusted programs. docs/plugins/code.md says what this protects from, and what not."""

import json
import os
import socket
import subprocess
import tempfile
import time
import weakref
from dataclasses import dataclass
from functools import cache
from types import TracebackType
from typing import Any, Self

from reasonrl_code import layout
from reasonrl_code.inside import landlock, wire
from reasonrl_code.limits import Limits

METHODS = ("bubblewrap", "namespaces", "process")
"""How a program is kept apart, best first."""
START_S, MARGIN_S = 60.0, 10.0
_UNTRIED = "untried"
_PROBE = "import colorsys, socket\ntry:\n    socket.socket()\n    print('open')\nexcept OSError:\n    print('cut')\n"


class SandboxError(Exception):
    """A sandbox did not start, or was lost."""


class NoSandboxError(ValueError):
    """This system has no way to keep a program apart as it was asked."""


@dataclass(frozen=True, kw_only=True)
class Ran:
    """What became of a program.

    ``status``: ``ok``, ``failed`` (an exception, or an exit status but 0), ``too_slow``, ``output`` (too much of it),
    ``killed`` (by a signal, such as for a crash) or ``lost`` (it broke the sandbox).
    """

    status: str
    stdout: str = ""
    stderr: str = ""
    exit_code: int = 0
    verdicts: str = ""


class Sandbox:
    """One sandbox; the programs that run in it, one after another, share nothing but the place."""

    def __init__(self, control: socket.socket, channel: socket.socket, limits: Limits, work: str) -> None:
        self._control, self._channel, self._limits, self._work = control, channel, limits, work
        self.is_clean = True
        """Whether a further program would find it as the first one did."""

    def start(self) -> None:
        """Wait until it is there.

        Raises:
            SandboxError: if the system refuses.
        """
        try:
            wire.receive(self._channel, time.monotonic() + START_S)
        except wire.WireError:
            raise SandboxError(self._why()) from None

    def _why(self) -> str:
        try:
            return str(wire.receive(self._control, time.monotonic() + MARGIN_S).get("error", "it ended at once"))
        except (wire.WireError, AttributeError):
            return "it ended at once"

    def run(self, source: str, stdin: str = "") -> Ran:
        """Run a program from its first line to its last, with ``stdin`` as standard input."""
        return self.ask({"kind": "run", "source": source, "stdin": stdin})

    def ask(self, request: dict[str, Any], seconds: float | None = None) -> Ran:
        """Have the supervisor run a request."""
        self.tell(request)
        return self.answer(seconds)

    def tell(self, request: dict[str, Any]) -> None:
        """Send a request whose answer is read later."""
        try:
            wire.send(self._channel, request)
        except wire.WireError:
            self.is_clean = False

    def answer(self, seconds: float | None = None) -> Ran:
        """Read an answer. All of it is text and numbers, and none of it is trusted."""
        limit = self._limits.wall_s if seconds is None else seconds
        try:
            said = wire.receive(self._channel, time.monotonic() + limit + MARGIN_S)
            self.is_clean = said["clean"] is True
            texts = {name: str(said[name]) for name in ("status", "stdout", "stderr", "verdicts")}
            return Ran(**texts, exit_code=int(said["code"]))
        except (wire.WireError, KeyError, TypeError, ValueError):
            self.is_clean = False
            return Ran(status="lost")

    def close(self) -> None:
        """End every process in it, and wait until they have ended."""
        self._channel.close()
        try:
            self._control.shutdown(socket.SHUT_WR)
            wire.receive(self._control, time.monotonic() + START_S)
        except (OSError, wire.WireError):
            pass
        self._control.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, err: BaseException | None, at: TracebackType | None) -> None:
        self.close()


class Launcher:
    """Starts sandboxes, each in milliseconds: one process of it has Python loaded.

    Raises:
        NoSandboxError: if this system cannot keep programs apart by ``method``, or by any for ``auto``.
    """

    def __init__(self, limits: Limits, method: str = "auto") -> None:
        self._limits = limits
        self._connect()
        self.method = method if method == _UNTRIED else _choose(method, limits.allow_network)

    def _connect(self) -> None:
        mine, other = socket.socketpair()
        with other:
            self._process = subprocess.Popen(
                layout.launcher_command(other.fileno()),
                pass_fds=[other.fileno()],
                env=layout.environment(),
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        self._socket = mine
        self.close = weakref.finalize(self, _end, mine, self._process)

    def open(self, *, method: str = "", peer: socket.socket | None = None) -> Sandbox:
        """Start a sandbox; ``peer`` is passed on to the programs in it.

        Raises:
            SandboxError: if it does not start.
        """
        chosen = method or self.method
        control, its_control = socket.socketpair()
        channel, its_channel = socket.socketpair()
        with its_control, its_channel:
            message, work = _describe(chosen, self._limits)
            descriptors = [its_control.fileno(), its_channel.fileno(), *([peer.fileno()] if peer else [])]
            try:
                socket.send_fds(self._socket, [message], descriptors)
                acknowledged = self._socket.recv(1)
            except OSError:
                acknowledged = b""
        if not acknowledged:
            raise SandboxError("the process that starts sandboxes has ended")
        sandbox = Sandbox(control, channel, self._limits, work)
        try:
            sandbox.start()
        except SandboxError:
            sandbox.close()
            raise
        return sandbox

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, err: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def _describe(method: str, limits: Limits) -> tuple[bytes, str]:
    """What the launcher is sent, and the working folder."""
    work = tempfile.mkdtemp(prefix="reasonrl-code-") if method == "process" else layout.WORK
    told = layout.settings(method, limits, work)
    if method == "process":
        told["landlock"] = landlock.version() > 0
        told["readable"] += layout.DEVICES
    if method == "bubblewrap":
        try:
            told["command"] = layout.bubblewrap_command(limits, told, as_root=os.geteuid() == 0)
        except OSError as err:
            raise SandboxError(str(err)) from None
    return json.dumps(told).encode(), work


def _end(channel: socket.socket, process: subprocess.Popen[bytes]) -> None:
    channel.close()
    process.wait()


@cache
def _choose(method: str, allow_network: bool) -> str:
    """Return the first method that works here, with limits that no busy machine breaks."""
    faults: list[str] = []
    limits = Limits(seconds=30.0, elapsed=START_S, allow_network=allow_network)
    with Launcher(limits, _UNTRIED) as launcher:
        for name in METHODS if method == "auto" else (method,):
            fault = _fault(launcher, name, limits)
            if not fault:
                return name
            faults.append(f"{name}: {fault}")
    raise NoSandboxError(
        f"no sandbox for programs on this system ({'; '.join(faults)}); install bubblewrap, or set allow_network=true "
        "in a separate container or virtual machine"
    )


def _fault(launcher: Launcher, method: str, limits: Limits) -> str:
    """Why a method does not work here; empty if it does."""
    if method == "process" and not landlock.version() and not limits.allow_network:
        return "the kernel has no Landlock to protect files"
    try:
        with launcher.open(method=method) as sandbox:
            ran = sandbox.run(_PROBE)
    except (SandboxError, OSError) as err:
        return str(err)
    if ran.status != "ok":
        return f"a program ended with {ran.status}"
    return "the network cannot be cut off" if ran.stdout.strip() != "cut" and not limits.allow_network else ""

"""Starting a process that can be ended with everything it started, and saying how it ended. No fork, ever."""

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

from reasonrl.rewards.guard import kill_descendants

MARK = "REASONRL_REWARD_WORKER"
"""Environment variable that every descendant of a worker carries, however it hides."""
TELL_WHERE = signal.SIGUSR1
"""A worker that gets it writes its stack to the pipe it was given, also from inside C code."""
BOOTSTRAP = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[2]); "
    "from reasonrl.rewards.worker import main; main(int(sys.argv[1]), int(sys.argv[3]))"
)

_SWEEPS = 20
_GRACE_S = 2.0
_TRACE_S = 0.1
_MAX_TRACE = 1 << 16
_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class ChildProcess:
    """A fresh interpreter in a session of its own: no Ctrl-C of a terminal reaches it.

    On Linux this is the guard of the worker, which ends as the worker does.
    """

    def __init__(self, descriptor: int, paths: str) -> None:
        self._mark = uuid.uuid4().hex
        self._traces, theirs = os.pipe()
        os.set_blocking(self._traces, False)
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", BOOTSTRAP, str(descriptor), paths, str(theirs)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=(descriptor, theirs),
                start_new_session=True,
                # Several workers with a thread a core would only be in each other's way.
                env={**dict.fromkeys(_ONE_THREAD, "1"), **os.environ, MARK: self._mark},
            )
        finally:
            os.close(theirs)

    @property
    def pid(self) -> int:
        """Its process id; also that of the worker's process group."""
        return self._process.pid

    def has_ended(self) -> bool:
        """Whether it ended by itself. It stays a zombie until ``end``, so that its group's number stays its own."""
        return self._status() is not None

    def how_it_ended(self) -> str:
        """``worker died (exit 3)`` or ``worker killed by signal 9``; waits a moment for one that is about to end."""
        limit = time.monotonic() + _GRACE_S
        while (status := self._status()) is None:
            if time.monotonic() > limit:
                return "worker closed its connection"
            time.sleep(0.005)
        if status.si_code == os.CLD_EXITED:
            return f"worker died (exit {status.si_status})"
        return f"worker killed by signal {status.si_status}"

    def _status(self) -> os.waitid_result | None:
        with contextlib.suppress(ChildProcessError):
            return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        return None

    def where_it_is(self) -> str:
        """The stack of its main thread, the innermost call first; empty if it does not say so at once."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, TELL_WHERE)
        text = b""
        while select.select([self._traces], [], [], _TRACE_S)[0] and len(text) < _MAX_TRACE:
            part = os.read(self._traces, 4096)
            if not part:
                break
            text += part
        return text.decode(errors="replace")

    def end(self) -> None:
        """Kill it and everything it started, and leave no zombie."""
        os.close(self._traces)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(self.pid, signal.SIGSTOP)  # the guard stays, so that what it adopts is still found below it
        kill_descendants(self.pid)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        for _ in range(_SWEEPS):  # some may fork while we look
            if not _kill_marked(f"{MARK}={self._mark}".encode()):
                break
            time.sleep(0.002)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=5)


def _kill_marked(mark: bytes) -> int:
    """Kill the processes that carry the mark; returns how many there were. Needs /proc, and finds none without."""
    found = 0
    for environ in Path("/proc").glob("[0-9]*/environ"):
        try:
            if mark in environ.read_bytes().split(b"\0"):
                os.kill(int(environ.parent.name), signal.SIGKILL)
                found += 1
        except OSError:  # not ours to read, or gone meanwhile
            continue
    return found

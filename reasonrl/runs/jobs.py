"""Carry out the runs of a sweep, a few at a time, each in a process of its own."""

import os
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Any, Literal

from reasonrl.errors import describe, describe_os_error
from reasonrl.rundir.files import open_to_write
from reasonrl.rundir.jsonl import last_record
from reasonrl.rundir.layout import METRICS
from reasonrl.rundir.reading import UnreadableError, open_regular
from reasonrl.runs.sweep import SweepRun
from reasonrl.signals import SIGNALS

POLL_S = 0.2
EXIT_IN_USE = 3
TAKEN = "another sweep has started it meanwhile"
TAIL_BYTES = 8192

Ending = Literal["finished", "failed", "stopped"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Ended:
    """How a run ended. ``reason``: the last error line of its log, if it failed."""

    run: SweepRun
    ending: Ending
    code: int
    seconds: float
    reason: str = ""


@dataclass(kw_only=True)
class Heard:
    """What a sweep tells while it runs: a run that started, one that ended, those in progress, and a stop."""

    started: Callable[[SweepRun], None]
    ended: Callable[[Ended], None]
    active: Callable[[Sequence[SweepRun]], None]
    stopping: Callable[[int], None]


@dataclass
class _Active:
    processes: dict[subprocess.Popen[bytes], tuple[SweepRun, float]] = field(default_factory=dict)
    asked: list[int] = field(default_factory=list)

    def handle(self, signum: int, frame: FrameType | None) -> None:
        """Pass a signal on: the first makes the runs save and end, the second ends them at once."""
        self.asked.append(signum)
        for process in self.processes:
            process.send_signal(signum)


def carry_out(runs: Sequence[SweepRun], jobs: int, heard: Heard) -> tuple[list[Ended], int]:
    """Run what is not finished, ``jobs`` at a time. A run that fails does not stop the others; a signal stops all.

    Returns:
        How each that was started ended, and the signal that stopped the sweep, or 0.
    """
    waiting, ended = deque(runs), list[Ended]()
    with _passing_signals() as active:
        while active.processes or (waiting and not active.asked):
            while waiting and len(active.processes) < jobs and not active.asked:
                run = waiting.popleft()
                code, reason = _try_start(run, active, jobs)
                if not code:
                    heard.started(run)
                else:
                    ended.append(Ended(run=run, ending="failed", code=code, seconds=0.0, reason=reason))
                    heard.ended(ended[-1])
            heard.active([run for run, _ in active.processes.values()])
            time.sleep(POLL_S)
            for process in [process for process in active.processes if process.poll() is not None]:
                run, since = active.processes.pop(process)
                ended.append(_end(run, process.returncode, time.monotonic() - since, bool(active.asked)))
                heard.ended(ended[-1])
            if active.asked and active.processes:
                heard.stopping(len(active.processes))
    return ended, active.asked[0] if active.asked else 0


def read_step(run: SweepRun) -> int:
    """The last step in the run's metrics; 0 before the first."""
    step = last_record(run.folder / METRICS).get("step", 0)
    return step if isinstance(step, int) else 0


def _try_start(run: SweepRun, active: _Active, jobs: int) -> tuple[int, str]:
    """Start a run. Returns the exit code and the reason where it cannot be started, or 0."""
    try:
        if not run.clear():
            return EXIT_IN_USE, TAKEN
        _start(run, active, jobs)
    except OSError as err:
        return 1, describe_os_error(err)
    return 0, ""


def _start(run: SweepRun, active: _Active, jobs: int) -> None:
    with open_to_write(run.log, "a") as log:
        # A group of its own: Ctrl-C reaches it once, through us.
        process = subprocess.Popen(
            run.command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment(jobs, os.environ),
            process_group=0,
        )
    active.processes[process] = (run, time.monotonic())
    if active.asked:
        process.send_signal(active.asked[-1])


def environment(jobs: int, environ: Mapping[str, str]) -> dict[str, str]:
    """For a run beside others: its share of the cores, and output that is in the log at once."""
    own = {**environ, "PYTHONUNBUFFERED": "1"}
    if jobs > 1:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        own.setdefault("OMP_NUM_THREADS", str(max(1, cores // jobs)))
    return own


def _end(run: SweepRun, code: int, seconds: float, is_stopping: bool) -> Ended:
    status = 128 - code if code < 0 else code  # as a shell reports a signal
    if status == 0:
        return Ended(run=run, ending="finished", code=0, seconds=seconds)
    is_stopped = is_stopping and status in [128 + signum for signum in SIGNALS]
    ending: Ending = "stopped" if is_stopped else "failed"
    return Ended(run=run, ending=ending, code=status, seconds=seconds, reason=_last_error(run))


def _last_error(run: SweepRun) -> str:
    try:
        with open_regular(run.log) as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - TAIL_BYTES))
            lines = [line for line in log.read().decode("utf-8", "replace").splitlines() if line.strip()]
    except (OSError, UnreadableError) as err:
        return f"its log cannot be read: {describe(err)}"
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    return (errors or lines or ["nothing was logged; check the disk"])[-1]


@contextmanager
def _passing_signals() -> Iterator[_Active]:
    active, previous = _Active(), dict[int, Any]()
    is_main = threading.current_thread() is threading.main_thread()
    for signum in SIGNALS if is_main else ():
        # A signal that is ignored (SIGHUP behind nohup) stays ignored.
        if signal.getsignal(signum) != signal.SIG_IGN:
            previous[signum] = signal.signal(signum, active.handle)
    try:
        yield active
    finally:
        for process in active.processes:  # after an error of our own
            process.terminate()
            process.wait()
        for number, handler in previous.items():
            signal.signal(number, handler)

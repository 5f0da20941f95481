"""The process in which an isolated reward lives. Started by ``pool.py``; ends with its trainer.

It limits itself before it imports the reward, judges what it is sent, and answers in JSON. Nothing that the reward
prints is kept, and nothing of torch is imported unless the reward does.
"""

import contextlib
import faulthandler
import json
import os
import pickle
import signal
import socket
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from reasonrl.errors import name_of, one_line
from reasonrl.importing import resolve
from reasonrl.redact import format_traceback
from reasonrl.rewards.guard import CHILD_SUBREAPER, PDEATHSIG, prctl, stay_behind
from reasonrl.rewards.judging import Kind, Verdict, failure, judge_call, judge_group, judge_one, kind_of
from reasonrl.rewards.processes import TELL_WHERE
from reasonrl.rewards.wire import MAX_TRACEBACK, Reply, encode_reply, frame, receive

# Nothing that a reward raises may leave its process, not even a KeyboardInterrupt: Ctrl-C was not pressed.
ANYTHING = (BaseException,)

Judge = Callable[..., Verdict | list[Verdict]]
JUDGES: dict[Kind, Judge] = {"each": judge_one, "group": judge_group, "call": judge_call}


@dataclass(frozen=True, kw_only=True)
class Description:
    """All that a worker needs to build its reward. ``build`` is a pickle of (factory, config, context)."""

    name: str
    build: bytes
    memory_mb: int | None


def main(descriptor: int, traces: int) -> None:
    """Serve until the trainer closes the socket ``descriptor``; ``traces`` takes the stack when the trainer asks."""
    followed = stay_behind(os.getppid(), TELL_WHERE)
    channel = socket.socket(fileno=descriptor)
    for inherited in (descriptor, traces):
        os.set_inheritable(inherited, False)
    os.set_blocking(traces, False)
    faulthandler.register(TELL_WHERE, file=traces, all_threads=False)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {TELL_WHERE})
    payload = receive(channel)
    if payload is None:
        return
    description: Description = pickle.loads(payload)
    _follow(followed)
    _limit(description.memory_mb)
    try:
        reward = _build(description)
        kind = kind_of(reward, description.name)
    except BaseException as err:  # noqa: BLE001 - a factory may raise anything; the trainer says what
        channel.sendall(frame(_refusal(err)))
        return
    channel.sendall(frame(json.dumps({"ready": kind}).encode()))
    _serve(channel, reward, partial(JUDGES[kind], name=description.name))


def _follow(parent: int) -> None:
    """End when ``parent`` ends, however it does; adopt what the reward's children leave behind."""
    prctl(PDEATHSIG, signal.SIGKILL)
    prctl(CHILD_SUBREAPER, 1)
    if os.getppid() != parent:  # it ended before the request was made
        os._exit(0)
    with contextlib.suppress(OSError):  # should memory run out, the kernel takes the worker, not the trainer
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")


def _limit(memory_mb: int | None) -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if memory_mb is not None:
        size = memory_mb * 2**20
        with contextlib.suppress(ValueError, OSError):  # a lower limit is in force already, or the system has none
            resource.setrlimit(resource.RLIMIT_AS, (size, size))


def _build(description: Description) -> object:
    factory, config, context = pickle.loads(description.build)
    build = resolve(factory) if isinstance(factory, str) else factory
    return build(config, context)


def _refusal(err: BaseException) -> bytes:
    told = {"failed": name_of(err), "user": isinstance(err, ValueError), "text": one_line(err)}
    return json.dumps(told).encode()


def _serve(channel: socket.socket, reward: object, judge: Judge) -> None:
    born, helpers = os.getpid(), _children()
    while (payload := receive(channel)) is not None:
        number, verdicts = _answer(payload, reward, judge)
        if os.getpid() != born:  # the reward forked, and this is the copy that came back
            os._exit(0)
        channel.sendall(frame(encode_reply(Reply(number, verdicts, _find_retire_reason(verdicts, helpers)))))


def _answer(payload: bytes, reward: object, judge: Judge) -> tuple[int, tuple[Verdict, ...]]:
    number, size, body = pickle.loads(payload)
    try:
        verdicts = judge(reward, *pickle.loads(body), ANYTHING)
    except BaseException as err:  # noqa: BLE001 - what the judge itself does not catch, such as memory running out
        verdicts = [failure("raised", f"raised {name_of(err)}", error=err)] * size
    told = verdicts if isinstance(verdicts, list) else [verdicts]
    return number, tuple(replace(v, details=_format_error(v.error)) if v.error else v for v in told)


def _format_error(err: BaseException) -> str:
    with contextlib.suppress(*ANYTHING):  # an error may refuse to be asked
        traceback.clear_frames(err.__traceback__)  # what filled the memory must go before there is room for a text
    return format_traceback(err, limit=-20)[-MAX_TRACEBACK:]


def _find_retire_reason(verdicts: tuple[Verdict, ...], helpers: set[int]) -> str:
    """Why this process should not judge again; empty if it may."""
    if any(isinstance(verdict.error, MemoryError) for verdict in verdicts):
        return "ran out of memory"
    strays = len(_children() - helpers)
    return f"left {strays} processes running" if strays else ""


def _children() -> set[int]:
    """Child processes, those that their own parents left behind included. Linux; elsewhere none are seen."""
    with contextlib.suppress(ChildProcessError):
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        return {int(folder.name) for folder in Path("/proc").glob("[0-9]*") if _is_child(folder)}
    return set()


def _is_child(process: Path) -> bool:
    """Whether a folder of /proc is that of a living child of ours. One that ended unnoticed is laid to rest."""
    try:
        state, parent = (process / "stat").read_text(errors="replace").rpartition(")")[2].split()[:2]
        if int(parent) != os.getpid():
            return False
        if state == "Z":
            os.waitpid(int(process.name), os.WNOHANG)
    except OSError:  # gone meanwhile
        return False
    return state != "Z"

"""The first process of a sandbox: it starts a process for each request, ends it and all it left, and reports.

Nothing here decides whether a program is right: it may not be trusted, for it lives beside the program.
"""

import contextlib
import json
import os
import resource
import select
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

from reasonrl_code.inside import checker, files, landlock, processes, program, seccomp, system, wire

CHUNK = 65536
OPEN_FILES = 64
MAX_ERROR_BYTES = 20_000
MAX_VERDICT_BYTES = 2**20


def main() -> None:
    """Serve in a sandbox that another program has set up; the settings are the argument."""
    settings = json.loads(sys.argv[1])
    serve(settings)


def serve(settings: dict[str, Any]) -> NoReturn:
    """Give up privileges, then answer requests until the other side closes."""
    _drop(settings.get("user"), keeps_search=settings.get("keeps_search", False))
    system.die_with_parent(signal.SIGKILL)
    channel = socket.socket(fileno=settings["channel"])
    with contextlib.suppress(wire.WireError):
        wire.send(channel, {"ready": True})
        while True:
            wire.send(channel, _answer(wire.receive(channel), settings))
    processes.kill_all()
    os._exit(0)


def _drop(user: int | None, *, keeps_search: bool) -> None:
    """Become another user, and lose all capabilities, or all but that of reading what Landlock leaves."""
    if keeps_search:
        system.keep_capabilities()
    if user is not None:
        os.setgroups([])
        try:
            os.setresgid(user, user, user)
            os.setresuid(user, user, user)
        except OSError:  # this container has no such user
            os.setresgid(65534, 65534, 65534)
            os.setresuid(65534, 65534, 65534)
    with contextlib.suppress(OSError):
        system.drop_capabilities(but=system.CAP_DAC_READ_SEARCH if keeps_search else None)
    with contextlib.suppress(OSError):
        system.prctl(system.PR_SET_NO_NEW_PRIVS, 1)


def _answer(request: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
    """Run one request in a new process."""
    started = time.monotonic()
    work = settings["work"]
    stdin = _file_with(request.get("stdin", ""), work)
    pipes = [os.pipe() for _ in range(3)]
    child = os.fork()
    if child == 0:
        try:
            _become(request, settings, stdin, [write for _, write in pipes])
        except BaseException as err:  # noqa: BLE001 - this is a copy of the supervisor, which must not go on
            said = f"the sandbox failed: {type(err).__name__}: {err}\n".encode(errors="replace")
            for descriptor in (pipes[1][1], 2):  # whichever is there
                with contextlib.suppress(OSError):
                    os.write(descriptor, said)
        finally:
            os._exit(program.BROKEN)
    os.close(stdin)
    if "peer" in settings and request["kind"] != "run":
        os.close(settings.pop("peer"))  # the other side must see when the child ends
    for _, write in pipes:
        os.close(write)
    try:
        reads = [read for read, _ in pipes]
        caps = (settings["output_bytes"], MAX_ERROR_BYTES, MAX_VERDICT_BYTES)
        ended, texts = _watch(child, dict(zip(reads, caps, strict=True)), started + settings["wall"])
        status, usage = processes.end(child)
    finally:
        for read, _ in pipes:
            os.close(read)
    out, errors, verdicts = texts
    return {
        "status": ended or _status(status, usage, settings["seconds"]),
        "code": os.waitstatus_to_exitcode(status),
        "stdout": out.decode(errors="replace"),
        "stderr": errors.decode(errors="replace"),
        "verdicts": verdicts.decode(errors="replace"),
        "seconds": usage,
        "clean": files.empty(work),
    }


def _status(status: int, cpu: float, limit: float) -> str:
    if os.WIFEXITED(status):
        return "ok" if os.WEXITSTATUS(status) == 0 else "failed"
    number = os.WTERMSIG(status)
    is_slow = number == signal.SIGXCPU or (number == signal.SIGKILL and cpu >= limit)
    return "too_slow" if is_slow else "killed"


def _watch(child: int, caps: dict[int, int], deadline: float) -> tuple[str, list[bytes]]:
    """Read what the child writes until it ends or breaks a limit; which one, or empty."""
    kept = {descriptor: bytearray() for descriptor in caps}
    reading = set(caps)
    exits = processes.exit_descriptor(child)
    ended = ""
    while not ended:
        left = deadline - time.monotonic()
        if left <= 0:
            ended = "too_slow"
            break
        wait = left if exits >= 0 else min(left, 0.005)
        ready, _, _ = select.select([*reading, *([exits] if exits >= 0 else [])], [], [], wait)
        if exits in ready or (exits < 0 and processes.has_ended(child)):
            break
        reading -= {d for d in ready if d in reading and not _read(d, kept[d])}
        ended = "output" if any(len(kept[d]) > caps[d] for d in list(caps)[:1]) else ""
        for descriptor in list(caps)[1:]:
            del kept[descriptor][caps[descriptor] :]
    if exits >= 0:
        os.close(exits)
    for descriptor in reading:  # what was written before the end
        os.set_blocking(descriptor, False)
        while len(kept[descriptor]) <= caps[descriptor] and _read(descriptor, kept[descriptor]):
            pass
    if not ended and any(len(kept[d]) > caps[d] for d in list(caps)[:1]):
        ended = "output"
    return ended, [bytes(text[: caps[descriptor]]) for descriptor, text in kept.items()]


def _read(descriptor: int, into: bytearray) -> bool:
    try:
        part = os.read(descriptor, CHUNK)
    except OSError:
        return False
    into += part
    return bool(part)


def _file_with(text: str, folder: str) -> int:
    """Return a descriptor of a file without a name that holds ``text``."""
    data = text.encode(errors="surrogateescape")
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("stdin", 0)
    else:
        path = Path(folder) / ".stdin"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        path.unlink()
    while data:
        data = data[os.write(descriptor, data) :]
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


def _become(request: dict[str, Any], settings: dict[str, Any], stdin: int, writes: list[int]) -> None:
    """Turn this process into the program, or into its tests."""
    os.setsid()
    out, err, verdicts = writes
    peer = settings.get("peer", -1) if request["kind"] != "run" else -1
    quiet = os.open(os.devnull, os.O_WRONLY)
    keeps_output = request["kind"] == "run"
    for source, target in ((stdin, 0), (out if keeps_output else quiet, 1), (err, 2)):
        os.dup2(source, target)
    verdicts = _keep_only(peer, verdicts if request["kind"] == "check" else -1)
    os.chdir(settings["work"])
    _new_streams()
    _limit(settings)
    _lock(settings)
    if request["kind"] == "run":
        program.run_script(request["source"])
    channel = socket.socket(fileno=3)
    if request["kind"] == "serve":
        program.serve_calls(request["sources"], channel, trim=request["trim"])
    checker.check(request, channel, verdicts)
    os._exit(0)


def _keep_only(peer: int, verdicts: int) -> int:
    """Close all descriptors but the first three; the peer becomes 3, the verdicts 4."""
    copies = [os.dup(d) if d >= 0 else -1 for d in (peer, verdicts)]
    for target, copy in zip((3, 4), copies, strict=True):
        if copy >= 0:
            os.dup2(copy, target + 200)
    for target, copy in zip((3, 4), copies, strict=True):
        if copy >= 0:
            os.dup2(target + 200, target)
        else:
            with contextlib.suppress(OSError):
                os.close(target)
    os.closerange(5, 1024)
    return 4


def _new_streams() -> None:
    for name, descriptor, mode in (("stdin", 0, "r"), ("stdout", 1, "w"), ("stderr", 2, "w")):
        stream = os.fdopen(descriptor, mode, encoding="utf-8", errors="surrogateescape", closefd=False)
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)


def _limit(settings: dict[str, Any]) -> None:
    seconds, memory, size = settings["seconds"], settings["memory_bytes"], settings["file_bytes"]
    limits = {
        "RLIMIT_CPU": (max(1, round(seconds)), max(1, round(seconds)) + 1),
        "RLIMIT_AS": (memory, memory),
        "RLIMIT_FSIZE": (size, size),
        "RLIMIT_CORE": (0, 0),
        "RLIMIT_NOFILE": (OPEN_FILES, OPEN_FILES),
        "RLIMIT_NPROC": (settings["tasks"], settings["tasks"]),
        "RLIMIT_MEMLOCK": (0, 0),
        "RLIMIT_MSGQUEUE": (0, 0),
    }
    for name, values in limits.items():
        if hasattr(resource, name):
            with contextlib.suppress(ValueError, OSError):  # a lower limit is in force, or the system has none
                resource.setrlimit(getattr(resource, name), values)


def _lock(settings: dict[str, Any]) -> None:
    """Apply what the system has against reaching beyond the sandbox."""
    if settings["landlock"]:
        landlock.restrict(settings["readable"], [settings["work"]])
    if settings["seccomp"]:
        code = seccomp.program(network=settings["network"], shared=settings["shared"], pid=os.getpid())
        seccomp.install(code)

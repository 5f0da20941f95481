"""The process that starts sandboxes: it has Python loaded, so that one more takes milliseconds.

For each request it forks a keeper, which stays outside: it makes the sandbox, and ends it when the other side closes,
however that ends.
"""

import contextlib
import json
import os
import select
import signal
import socket
import sys
from pathlib import Path
from typing import Any, NoReturn

from reasonrl_code.inside import files, namespaces, processes, seccomp, supervisor, system, wire

FIRST_USER = 0x70000000
"""As root, the sandbox of the process N runs as this user plus N, which no other process has."""
ACK = b"+"


def main(descriptor: int) -> None:
    """Start a sandbox for each message on the socket, until it closes. A message brings descriptors along."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps keepers
    channel = socket.socket(fileno=descriptor)
    with contextlib.suppress(OSError):
        while True:
            message, descriptors, _, _ = socket.recv_fds(channel, 65536, 4)
            if not message:
                return
            if os.fork() == 0:
                channel.close()
                _keep(json.loads(message), descriptors)
            for received in descriptors:
                os.close(received)
            channel.sendall(ACK)


def _keep(settings: dict[str, Any], descriptors: list[int]) -> NoReturn:
    """Make the sandbox, and end it when it or the other side is done."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    control = socket.socket(fileno=descriptors[0])
    settings["channel"] = descriptors[1]
    if len(descriptors) > 2:
        settings["peer"] = descriptors[2]
    system.adopt_orphans()
    with contextlib.suppress(OSError):  # should memory run out, the kernel takes the program
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
    settings.update(_identity(settings))
    child = 0
    try:
        child = _start(settings, control)
        for received in descriptors[1:]:
            os.close(received)
        exits = processes.exit_descriptor(child)
        select.select([control.fileno(), *([exits] if exits >= 0 else [])], [], [])
    except OSError as err:
        with contextlib.suppress(wire.WireError):
            wire.send(control, {"error": str(err)})
    finally:
        if child:
            processes.end_tree(child)
        if settings["method"] == "process":
            files.remove(settings["work"])
        with contextlib.suppress(wire.WireError):
            wire.send(control, {"ended": True})
        os._exit(0)


def _identity(settings: dict[str, Any]) -> dict[str, Any]:
    """Whom the program runs as, and the limit of tasks that gives it as many as it may have."""
    if os.geteuid() == 0:
        keeps_search = settings["landlock"] and not all(map(_is_open_to_all, settings["readable"]))
        own = {"user": FIRST_USER + os.getpid(), "keeps_search": keeps_search}
        return {**own, "tasks": settings["processes"] + 2}
    counts_apart = settings["method"] != "process" and _release() >= (5, 14)
    others = 0 if counts_apart else processes.tasks_of(os.geteuid())
    return {"tasks": others + settings["processes"] + 2}


def _is_open_to_all(path: str) -> bool:
    """Whether other users may enter the folders above a path."""
    return all(folder.stat().st_mode & 1 for folder in Path(path).parents)


def _release() -> tuple[int, ...]:
    return tuple(int(part) for part in os.uname().release.split("-")[0].split(".")[:2] if part.isdigit())


def _start(settings: dict[str, Any], control: socket.socket) -> int:
    """Start the first process of the sandbox."""
    method = settings["method"]
    settings["seccomp"] = settings["seccomp"] and seccomp.is_supported()
    if method == "namespaces":
        namespaces.enter(settings)
    elif method == "process" and "user" in settings:
        os.chown(settings["work"], settings["user"], settings["user"])
    child = os.fork()
    if child:
        return child
    try:
        control.close()
        if method == "bubblewrap":
            _become_bubblewrap(settings)
        supervisor.serve(settings)
    finally:
        os._exit(1)


def _become_bubblewrap(settings: dict[str, Any]) -> None:
    command = [*settings["command"], json.dumps({k: v for k, v in settings.items() if k != "command"})]
    for descriptor in (settings["channel"], settings.get("peer", -1)):
        if descriptor >= 0:
            os.set_inheritable(descriptor, True)
    quiet = os.open(os.devnull, os.O_RDWR)
    for standard in range(3):
        os.dup2(quiet, standard)
    os.execv(command[0], command)


if __name__ == "__main__":
    main(int(sys.argv[1]))

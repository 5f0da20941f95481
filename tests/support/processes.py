"""Processes that start in milliseconds: forked from a server that has imported torch and done nothing else."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from importlib import metadata
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

_server: Any = None

PRELOADED = ["torch", "torch.testing", "transformers", "accelerate", "peft", "reasonrl.runs.assemble"]
LIMIT_S = 200


def server() -> Any:
    """The context that forks children."""
    global _server
    if _server is None:
        _server = multiprocessing.get_context("forkserver")
        _server.set_forkserver_preload(PRELOADED)
    return _server


def child(target: Callable[..., None], *args: Any) -> Any:
    """A started process."""
    process = server().Process(target=target, args=args)
    process.start()
    return process


class Ended(subprocess.CompletedProcess[str]):
    """How processes ended; ``codes``: of each."""

    codes: list[int]


def on_ranks(
    size: int,
    target: Callable[..., object],
    *args: object,
    more: Mapping[str, str] = {},
    ends_others: bool = True,
) -> Ended:
    """``target(*args)`` in ``size`` processes with the variables and the end of torch's launcher.

    The first process that fails ends the others, and the exit status is then 1. ``more``: variables. Targets leave
    torch's process group alone at their end: once it is destroyed, DDP's reducer frees its threads while it holds the
    GIL, which one of them may be waiting for.

    Args:
        ends_others: False as on separate machines, where each runs until it notices by itself.
    """
    with tempfile.TemporaryDirectory() as folder:
        shared = {"WORLD_SIZE": str(size), "LOCAL_WORLD_SIZE": str(size), "OMP_NUM_THREADS": "1", **more}
        shared |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
        ranks = [child(_enter, rank, shared, Path(folder), target, args) for rank in range(size)]
        codes = _wait_for(ranks, ends_others)
        out, err = ((Path(folder) / name).read_text(encoding="utf-8") for name in ("out", "err"))
    ended = Ended([getattr(target, "__name__", "?"), *map(str, args)], int(any(codes)), out, err)
    ended.codes = codes
    return ended


def command_on_ranks(size: int, *words: object, more: Mapping[str, str] = {}, ends_others: bool = True) -> Ended:
    """``reasonrl WORDS`` likewise."""
    return on_ranks(size, _reasonrl, *map(str, words), more=more, ends_others=ends_others)


def differing(changes: Mapping[int, Mapping[str, Any]], *words: str) -> None:
    """The target of ``reasonrl WORDS`` in processes that differ: rank -> what is different there.

    ``words`` are added, ``environ`` is set, ``cwd`` is changed to, ``waits`` are seconds before the start, ``versions``
    are those of packages, ``patience`` are seconds until a process says that it waits.
    """
    mine = changes.get(int(os.environ["RANK"]), {})
    time.sleep(mine.get("waits", 0.0))
    os.environ.update(mine.get("environ", {}))
    os.chdir(mine.get("cwd", os.curdir))
    if patience := mine.get("patience"):
        from reasonrl.runs import meeting

        meeting.PATIENCE_S = patience
    if versions := mine.get("versions"):
        known = metadata.version
        metadata.version = lambda name: versions.get(name) or known(name)
    _reasonrl(*words, *mine.get("words", ()))


def command(*words: object, cwd: Path, site: Path | None = None) -> subprocess.CompletedProcess[str]:
    """``reasonrl WORDS`` in a process of its own that starts in ``cwd`` and finds packages in ``site`` too."""
    return _run(_reasonrl, words, cwd, site)


def run_pytest(*words: object, cwd: Path, site: Path | None = None) -> subprocess.CompletedProcess[str]:
    """``pytest WORDS`` likewise."""
    return _run(_pytest, words, cwd, site)


def _run(
    target: Callable[..., None], words: tuple[object, ...], cwd: Path, site: Path | None
) -> subprocess.CompletedProcess[str]:
    with tempfile.TemporaryDirectory() as folder:
        process = child(_start, Path(folder), cwd, site, target, tuple(map(str, words)))
        if not wait_for_any([process.sentinel]):
            process.kill()
        process.join()
        out, err = ((Path(folder) / name).read_text(encoding="utf-8") for name in ("out", "err"))
    return subprocess.CompletedProcess([target.__name__, *map(str, words)], process.exitcode, out, err)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for_any(sentinels: Iterable[Any]) -> list[Any]:
    """Those of the processes that have ended; none after the limit.

    The limit counts seconds of waiting, not of the clock: a container with all of its processes may be paused for
    minutes without any of them hanging.
    """
    waiting = list(sentinels)
    for _ in range(LIMIT_S):
        if ended := wait(waiting, timeout=1.0):
            return ended
    return []


def _wait_for(ranks: list[Any], ends_others: bool) -> list[int]:
    """Their exit codes."""
    waiting = {process.sentinel: process for process in ranks}
    try:
        while waiting:
            ended = wait_for_any(waiting)
            assert ended, f"{len(waiting)} processes still run after {LIMIT_S} s"
            for process in [waiting.pop(sentinel) for sentinel in ended]:
                process.join()
                if process.exitcode and ends_others:
                    for other in waiting.values():
                        other.terminate()
    finally:
        for process in waiting.values():
            process.kill()
    return [process.exitcode for process in ranks]


def _enter(
    rank: int, shared: Mapping[str, str], folder: Path, target: Callable[..., object], args: tuple[object, ...]
) -> None:
    import torch

    os.environ.update(shared, RANK=str(rank), LOCAL_RANK=str(rank))
    torch.set_num_threads(1)
    _write_to(folder)
    target(*args)


def _start(folder: Path, cwd: Path, site: Path | None, target: Callable[..., None], words: tuple[str, ...]) -> None:
    os.environ.pop("REASONRL_PLUGINS", None)
    os.environ.update(COLUMNS="80", HF_HUB_OFFLINE="1")
    os.chdir(cwd)
    sys.path[:0] = [] if site is None else [str(site)]
    _write_to(folder)
    target(*words)


def _write_to(folder: Path) -> None:
    """Write output to files there, and end on Ctrl-C as in the foreground."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for stream, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND), stream)


def _reasonrl(*words: str) -> None:
    from reasonrl.cli.app import main

    sys.argv = ["reasonrl", *words]
    main()


def _pytest(*words: str) -> None:
    import pytest

    sys.exit(pytest.main(list(words)))

"""What a plugin's code changes of the process by the way is as before after the call."""

import builtins
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from reasonrl.errors import plugin_code


def moves() -> None:
    os.chdir("/")


def handles() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, lambda *_: None)


def patches() -> None:
    builtins.len = lambda _: 7  # type: ignore[assignment]
    del builtins.sorted


def redirects() -> None:
    sys.stdout = sys.stderr


def closes() -> None:
    sys.stdout.close()


def alarms() -> None:
    signal.setitimer(signal.ITIMER_REAL, 600)


def flattens() -> None:
    sys.setrecursionlimit(sys.getrecursionlimit() - 1)


def fails() -> None:
    moves()
    patches()
    raise ValueError


@pytest.mark.parametrize("change", [moves, handles, patches, redirects, alarms, flattens, fails])
def test_it_is_restored(change: Callable[[], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    before = (os.getcwd(), signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGHUP), sys.stdout)
    functions, depth = dict(vars(builtins)), sys.getrecursionlimit()
    try:
        with plugin_code():
            change()
    except ValueError:
        assert change is fails
    assert (os.getcwd(), signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGHUP), sys.stdout) == before
    assert dict(vars(builtins)) == functions
    assert (sys.getrecursionlimit(), signal.getitimer(signal.ITIMER_REAL)) == (depth, (0.0, 0.0))


def test_a_closed_stream_is_opened_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "stdout", (tmp_path / "out").open("w"))
    with plugin_code():
        closes()
    assert not sys.stdout.closed

"""Which signals stop a run, which end the process, and which handlers are left alone."""

import os
import signal
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

import reasonrl.cli.app as entry
from reasonrl.cli import doctor
from reasonrl.cli.app import app
from reasonrl.rundir.new_folder import new_folder
from reasonrl.signals import (
    GENTLE,
    SIGNALS,
    CtrlC,
    StopRequested,
    StopSignals,
    handle_stop_signals,
    raise_signals,
    raise_stop,
)

INT, TERM, QUIT, HUP = signal.SIGINT, signal.SIGTERM, signal.SIGQUIT, signal.SIGHUP
USR1, USR2, XCPU = signal.SIGUSR1, signal.SIGUSR2, signal.SIGXCPU


class Ended(BaseException):
    """In place of the end of the process."""


@pytest.fixture(autouse=True)
def _ends(monkeypatch: pytest.MonkeyPatch) -> None:
    def end(code: int) -> None:
        raise Ended(code)

    monkeypatch.setattr(os, "_exit", end)


def send(stop: StopSignals, sent: list[signal.Signals]) -> None:
    for signum in sent:
        stop.handle(signum, None)
    stop.check()


@pytest.mark.parametrize(
    ("sent", "ends"),
    [
        ([INT, INT], 130),
        ([INT, TERM], 143),
        ([TERM, QUIT], 131),
        ([HUP, TERM, TERM], 143),
        ([USR1, TERM, INT], 130),
        *([[first, HUP, USR1, USR2, XCPU, XCPU], None] for first in SIGNALS),
        *([[gentle, TERM], None] for gentle in GENTLE),  # Slurm: a warning, then the end
        *([[gentle, gentle], None] for gentle in GENTLE),  # a closed terminal says so twice
    ],
)
def test_only_a_second_urgent_signal_ends_at_once(sent: list[signal.Signals], ends: int | None) -> None:
    stop = StopSignals()
    stop.defer()
    with pytest.raises(StopRequested if ends is None else Ended) as ended:
        send(stop, sent)
    assert ends is None or ended.value.args == (ends,)


@pytest.mark.parametrize("signum", SIGNALS)
def test_every_signal_stops_with_the_code_of_a_shell(signum: signal.Signals) -> None:
    before = signal.signal(signum, signal.default_int_handler if signum == INT else signal.SIG_DFL)  # behind & ignored
    try:
        with handle_stop_signals(), pytest.raises(StopRequested) as stopped:
            signal.raise_signal(signum)
    finally:
        signal.signal(signum, before)
    assert stopped.value.exit_code == 128 + signum


def test_ignored_signals_and_the_callers_handlers_stay() -> None:
    def own(*_: object) -> None:
        """Of the program that calls reasonrl."""

    before = {HUP: signal.signal(HUP, signal.SIG_IGN), USR1: signal.signal(USR1, own)}
    try:
        with handle_stop_signals():
            assert signal.getsignal(HUP) == signal.SIG_IGN
            assert signal.getsignal(USR1) is own
            assert signal.getsignal(XCPU) not in (signal.SIG_DFL, own)
        assert signal.getsignal(XCPU) == signal.SIG_DFL
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


@pytest.mark.parametrize("signum", SIGNALS)
def test_a_command_without_a_run_ends_with_the_code_of_a_shell_and_cleans_up(
    signum: signal.Signals, tmp_path: Path
) -> None:
    ends, default = StopRequested, signal.SIG_DFL
    if signum == INT:
        ends, default = CtrlC, signal.default_int_handler

    def export() -> None:
        with new_folder(tmp_path / "new" / "export") as folder:
            (folder / "model.safetensors").write_text("half a model")
            with handle_stop_signals():  # a run inside takes over
                assert signal.getsignal(signum) is not raise_stop
            signal.raise_signal(signum)

    before = signal.signal(signum, default)
    try:
        with raise_signals(), pytest.raises(ends) as stopped:
            export()
        assert signal.getsignal(signum) is default
    finally:
        signal.signal(signum, before)
    assert getattr(stopped.value, "exit_code", 130) == 128 + signum
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("sent", [(USR1, TERM), (HUP, TERM), (HUP, USR2), (TERM, INT), (INT, TERM), (QUIT, INT)])
def test_the_status_of_a_command_names_the_first_of_two_signals(
    sent: tuple[signal.Signals, ...], hangup_by_default: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second comes while the command cleans up."""

    def examine(*_: object) -> None:
        try:
            signal.raise_signal(sent[0])
        finally:
            signal.raise_signal(sent[1])

    monkeypatch.setattr(doctor, "run_doctor", examine)
    done = CliRunner().invoke(app, ["doctor", "run"])
    assert (done.exit_code, done.stderr) == (128 + sent[0], "interrupted\n")


def test_ctrl_c_before_signals_are_handled_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def press(**_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(entry, "app", press)
    monkeypatch.setattr(entry, "steady_streams", lambda: None)
    with pytest.raises(SystemExit) as ended:
        entry.main()
    assert (ended.value.code, capsys.readouterr().err) == (130, "interrupted\n")


@pytest.mark.parametrize("second", SIGNALS)
def test_a_signal_while_a_command_says_that_it_ends_changes_nothing(
    second: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    def examine(*_: object) -> None:
        signal.raise_signal(TERM)

    def echo(*_: object, **__: object) -> None:
        signal.raise_signal(second)

    codes: list[int] = []
    monkeypatch.setattr(os, "_exit", codes.append)
    monkeypatch.setattr(doctor, "run_doctor", examine)
    monkeypatch.setattr(typer, "echo", echo)
    handler = signal.signal(second, signal.default_int_handler if second == INT else signal.SIG_DFL)
    try:
        done = CliRunner().invoke(app, ["doctor", "run"])
    finally:
        signal.signal(second, handler)
    assert {done.exit_code, *codes} == {143}

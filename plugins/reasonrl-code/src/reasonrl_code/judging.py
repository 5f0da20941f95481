"""Run the tests of a problem against a program. The verdict is found outside of the program's sandbox."""

import json
import socket
from dataclasses import dataclass
from typing import Any

from reasonrl_code.compare import same_output
from reasonrl_code.limits import Limits
from reasonrl_code.sandbox import Launcher, Ran, Sandbox

PASSED = ""
_STATUS = {"ok": PASSED, "failed": "raised"}


class DataFaultError(ValueError):
    """The tests of a problem do not run, whatever the program."""


@dataclass(frozen=True)
class Outcome:
    """Why each test failed, in a word; empty = passed."""

    faults: tuple[str, ...]

    @property
    def passed(self) -> int:
        """The number of tests passed."""
        return self.faults.count(PASSED)

    @property
    def reason(self) -> str:
        """``right``, or what was wrong with the first test that failed."""
        return next((fault for fault in self.faults if fault != PASSED), "right")


def judge(launcher: Launcher, limits: Limits, info: dict[str, Any], sources: list[str]) -> Outcome:
    """Run the tests of ``info`` against a program: its last source, after those that the problem gives.

    Raises:
        DataFaultError: if the tests do not run. SandboxError: if no sandbox starts.
    """
    if info["kind"] == "stdio":
        return _judge_stdio(launcher, sources[-1], info["tests"])
    return _judge_function(launcher, limits, info, sources)


def _judge_stdio(launcher: Launcher, source: str, tests: list[list[str]]) -> Outcome:
    """Give the program each input, and compare what it prints. No expected output is ever in the sandbox."""
    faults: list[str] = []
    sandbox: Sandbox | None = None
    try:
        for given, expected in tests:
            if faults and faults[-1] == "too_slow":  # so would be the next
                faults.append("too_slow")
                continue
            if sandbox is None or not sandbox.is_clean:
                if sandbox is not None:
                    sandbox.close()
                sandbox = launcher.open()
            faults.append(_fault_of(sandbox.run(source, given), expected))
    finally:
        if sandbox is not None:
            sandbox.close()
    return Outcome(tuple(faults))


def _fault_of(ran: Ran, expected: str) -> str:
    if ran.status != "ok":
        return _STATUS.get(ran.status, ran.status)
    return PASSED if same_output(expected, ran.stdout) else "wrong"


def _judge_function(launcher: Launcher, limits: Limits, info: dict[str, Any], sources: list[str]) -> Outcome:
    """Run the tests in one sandbox and the program in another. Only plain values pass between them."""
    one, two = socket.socketpair()
    with one, two, launcher.open(peer=one) as program, launcher.open(peer=two) as tests:
        one.close()
        two.close()
        program.tell({"kind": "serve", "sources": sources, "trim": info["form"] == "function"})
        wanted = {name: info[name] for name in ("setup", "names", "aliases", "tests")}
        ran = tests.ask({"kind": "check", "seconds": limits.wall_s, **wanted})
        verdicts = _verdicts(ran)
        number = len(info["tests"])
        if len(verdicts) < number:
            verdicts += ["too_slow" if ran.status == "too_slow" else "lost"] * (number - len(verdicts))
        if "ended" in verdicts:
            status = program.answer().status
            why = "ended" if status in ("ok", "failed") else status
            verdicts = [why if verdict == "ended" else verdict for verdict in verdicts]
    return Outcome(tuple(verdicts[:number]))


def _verdicts(ran: Ran) -> list[str]:
    found: list[str] = []
    for line in ran.verdicts.splitlines():
        try:
            said = json.loads(line)
        except ValueError:  # the process ended while it wrote
            break
        if isinstance(said, dict):
            raise DataFaultError(f"the tests do not run: {said.get('setup')}")
        found.append(PASSED if said is None else str(said)[:60])
    return found

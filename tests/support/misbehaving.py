"""Rewards that go wrong in every way a reward can, as a plugin; for worker processes, so importable by name."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from reasonrl import Completion, Problem, RewardContext, RewardSpec, RolloutGroup, Score, hookimpl

FOREVER = 1000.0
FINE = "fine"
# In the command line of what a reward starts; that of the test process, which its workers inherit.
MARKER = os.environ.setdefault("REASONRL_TEST_STRAYS", f"reasonrl-stray-{os.getpid()}")


def raises(problem: Problem, completion: Completion) -> Any:
    raise ValueError("the reward's own bug")


def hangs(problem: Problem, completion: Completion) -> Any:
    time.sleep(FOREVER)


def spins(problem: Problem, completion: Completion) -> Any:
    return len(str(7 ** (10**9)))  # inside C: no signal handler would ever run


def exits(problem: Problem, completion: Completion) -> Any:
    sys.exit(0)


def exits_at_once(problem: Problem, completion: Completion) -> Any:
    os._exit(3)


def kills_itself(problem: Problem, completion: Completion) -> Any:
    os.kill(os.getpid(), signal.SIGKILL)


def interrupts(problem: Problem, completion: Completion) -> Any:
    raise KeyboardInterrupt


def _stray(*, hidden: bool = False) -> subprocess.Popen[bytes]:
    code = f"import time; {MARKER!r}; time.sleep({FOREVER})"
    return subprocess.Popen([sys.executable, "-S", "-c", code], start_new_session=hidden)


def leaves_a_child(problem: Problem, completion: Completion) -> Any:
    _stray()
    return 0.5


def leaves_a_hidden_grandchild(problem: Problem, completion: Completion) -> Any:
    """A child in a session of its own, whose parent has ended, as a daemon would."""
    if os.fork() == 0:
        _stray(hidden=True)
        os._exit(0)
    os.wait()
    return 0.5


def hangs_with_children(problem: Problem, completion: Completion) -> Any:
    _stray()
    _stray(hidden=True)
    time.sleep(FOREVER)


def dies_with_children(problem: Problem, completion: Completion) -> Any:
    _stray()
    _stray(hidden=True)
    os._exit(4)


def _escape() -> None:
    """Out of the session, the environment and the family: two forks, and neither waited for."""
    code = f"import time; {MARKER!r}; time.sleep({FOREVER})"
    subprocess.run(["setsid", "-f", "env", "-i", sys.executable, "-S", "-c", code], check=True)


def escapes(problem: Problem, completion: Completion) -> Any:
    _escape()
    return 0.5


def escapes_and_dies(problem: Problem, completion: Completion) -> Any:
    _escape()
    os.kill(os.getpid(), signal.SIGKILL)


def escapes_and_hangs(problem: Problem, completion: Completion) -> Any:
    _escape()
    time.sleep(FOREVER)


def much(problem: Problem, completion: Completion) -> Any:
    """Large texts and many metrics."""
    metrics = {f"{number:04}{'n' * 150}": 1.0 for number in range(2000)}
    return Score(value=0.5, answer="y" * 50_000, reason="z" * 100_000, metrics=metrics)


def comes_back_twice(problem: Problem, completion: Completion) -> Any:
    if os.fork() == 0:
        return 1.0
    os.wait()
    return 0.5


def leaves_zombies(problem: Problem, completion: Completion) -> Any:
    for _ in range(3):
        if os.fork() == 0:
            os._exit(0)
    time.sleep(0.05)
    return 0.5


def prints(problem: Problem, completion: Completion) -> Any:
    line = "x" * 99_999 + "\n"
    for _ in range(1000):
        sys.stdout.write(line)
    sys.stdout.flush()
    os.write(2, line.encode())
    return 0.5


def nan(problem: Problem, completion: Completion) -> Any:
    return float("nan")


def text(problem: Problem, completion: Completion) -> Any:
    return "1.0"


def huge(problem: Problem, completion: Completion) -> Any:
    return 1e308


def mutates(problem: Problem, completion: Completion) -> Any:
    value = 0.25 * len(problem.info["numbers"])
    problem.info["numbers"].clear()  # type: ignore[attr-defined]
    object.__setattr__(completion, "text", "better")
    return value


def allocates(problem: Problem, completion: Completion) -> Any:
    kept = []
    while True:
        kept.append(bytearray(2**24))


def talks_too_much(problem: Problem, completion: Completion) -> Any:
    return Score(value=1.0, answer="x" * 3_000_000)


def _write_reply(payload: bytes) -> None:
    """What hostile code could do: find the socket to the trainer and write on it."""
    for entry in os.listdir("/proc/self/fd"):
        try:
            if os.readlink(f"/proc/self/fd/{entry}").startswith("socket:"):
                os.write(int(entry), payload)
        except OSError:
            continue


def forges(problem: Problem, completion: Completion) -> Any:
    _write_reply(b"\x00" * 7 + b"\x05" + b"[[[[[")
    time.sleep(FOREVER)


def announces_terabytes(problem: Problem, completion: Completion) -> Any:
    _write_reply(b"\x00\x00\xff\xff\xff\xff\xff\xff" + b"x" * 100)
    time.sleep(FOREVER)


def closes_everything(problem: Problem, completion: Completion) -> Any:
    os.closerange(0, 100)
    time.sleep(FOREVER)


def bytewise(problem: Problem, completion: Completion) -> Any:
    """Never late with the next byte, never done."""
    _write_reply(b"\x00" * 6 + b"\xff\xff")
    while True:
        _write_reply(b"x")
        time.sleep(0.01)


def commands_the_terminal(problem: Problem, completion: Completion) -> Any:
    raise RuntimeError("\x1b[2J\x07 wiped")


def length(problem: Problem, completion: Completion) -> Any:
    return Score(value=len(completion.text) % 11 / 10, reason=f"{len(completion.text)} characters")


def hangs_on_one_in_ten(problem: Problem, completion: Completion) -> Any:
    """By the problem, so that it does not depend on what was judged before."""
    if problem.info["n"] % 10 == 3:
        time.sleep(FOREVER)
    return length(problem, completion)


def loaded_modules(problem: Problem, completion: Completion) -> Any:
    loaded = sorted(m for m in ("torch", "transformers", "numpy") if m in sys.modules)
    return Score(value=0.0, answer=f"{os.getpid()} {os.getsid(0)}", reason=",".join(loaded))


def slow_for_the_first(problem: Problem, completion: Completion) -> Any:
    time.sleep(0.3 if completion.text == "0" else 0.0)
    return int(completion.text) / 100


EACH: dict[str, Callable[[Problem, Completion], Any]] = {
    function.__name__: function
    for function in (
        raises, hangs, spins, exits, exits_at_once, kills_itself, interrupts, leaves_a_child,
        leaves_a_hidden_grandchild, hangs_with_children, dies_with_children, comes_back_twice, leaves_zombies, prints,
        escapes, escapes_and_dies, escapes_and_hangs, much,
        nan, text, huge, mutates, allocates, talks_too_much, forges, announces_terabytes, closes_everything, bytewise,
        commands_the_terminal, length, hangs_on_one_in_ten, loaded_modules, slow_for_the_first,
    )
}  # fmt: skip


@dataclass(frozen=True)
class Behavior:
    does: str = field(default="length", metadata={"help": "a function of this module"})


class Misbehaving:
    """Does what its config names, to every text but ``fine``."""

    def __init__(self, config: Behavior, context: RewardContext) -> None:
        self._function = EACH[config.does]

    def score(self, problem: Problem, completion: Completion) -> Any:
        return length(problem, completion) if completion.text == FINE else self._function(problem, completion)


class WrongLength:
    """A group reward that forgets one."""

    def __init__(self, config: Any, context: RewardContext) -> None: ...

    def score_group(self, group: RolloutGroup) -> Sequence[float]:
        return [1.0] * (len(group.completions) - 1)


class Ranks:
    """A group reward that compares: the longest text earns the most."""

    def __init__(self, config: Any, context: RewardContext) -> None: ...

    def score_group(self, group: RolloutGroup) -> Sequence[float]:
        longest = max(len(c.text) for c in group.completions)
        return [len(c.text) / longest for c in group.completions]


class Helped:
    """Starts a helper once, in its constructor, and keeps it."""

    def __init__(self, config: Any, context: RewardContext) -> None:
        self._helper = _stray()

    def score(self, problem: Problem, completion: Completion) -> Score:
        return Score(value=1.0, answer=f"{os.getpid()} {self._helper.pid}")


def refuses_its_config(config: Any, context: RewardContext) -> Any:
    raise ValueError("limit must be positive, got -1")


def cannot_be_built(config: Any, context: RewardContext) -> Any:
    raise ImportError("no module named 'sympy'")


def makes_no_reward(config: Any, context: RewardContext) -> Any:
    return 5


def builds_once_only(config: Behavior, context: RewardContext) -> Any:
    """Its second worker cannot be built. ``config.does`` is a file that says whether this is the first."""
    with open(config.does, "x"):
        return Misbehaving(Behavior(exits_at_once.__name__), context)


def prints_and_exits(config: Any, context: RewardContext) -> Any:
    prints(Problem(id="", prompt=""), None)  # type: ignore[arg-type]
    os._exit(9)


@hookimpl
def reasonrl_rewards() -> Iterable[RewardSpec]:
    yield RewardSpec(
        name="misbehaving",
        summary="Goes wrong as it is told.",
        config=Behavior,
        factory=Misbehaving,
        isolation="process",
        timeout_s=1.0,
    )

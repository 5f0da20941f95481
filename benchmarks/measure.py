"""What the speed benchmarks share: processes that take turns, intervals, lines of results, tables."""

import json
import math
import os
import platform
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any

from reasonrl.statistics.student import quantile

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "speed.jsonl"


class Worker:
    """A side of a comparison in a process of its own. It works only when asked, so that sides can take turns."""

    def __init__(
        self, script: str, settings: Mapping[str, Any], *, threads: int | None, python: str = sys.executable
    ) -> None:
        environment = {
            **os.environ,
            "HF_HUB_OFFLINE": "1",
            "TOKENIZERS_PARALLELISM": "false",
            "PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "plugins", ROOT / "benchmarks"))),
        }
        for name in ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT"):  # each side takes its own defaults
            environment.pop(name, None)
        if threads is not None:
            environment["OMP_NUM_THREADS"] = str(threads)
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 - as long as the process
        self._process = subprocess.Popen(
            [python, str(ROOT / "benchmarks" / script), "--worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env=environment,
        )
        self.hello = self.ask(settings)

    def ask(self, message: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Send ``message`` and wait for the answer.

        Raises:
            RuntimeError: with the end of what it has printed, if the process has ended.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(message or {}) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            self._errors.seek(0)
            raise RuntimeError(f"{self._process.args}: ended\n{self._errors.read()[-3000:]}")
        found: dict[str, Any] = json.loads(line)
        return found

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.kill()
        self._process.wait()


class Channel:
    """The other end, in the worker. What libraries print goes to the standard error instead."""

    def __init__(self) -> None:
        self._out = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)

    def receive(self) -> dict[str, Any]:
        """The next message; the process ends when there will be none."""
        line = sys.stdin.readline()
        if not line:
            os._exit(0)
        found: dict[str, Any] = json.loads(line)
        return found

    def send(self, **fields: Any) -> None:
        """Answer."""
        self._out.write(json.dumps(fields) + "\n")
        self._out.flush()


@contextmanager
def workers(start: Mapping[str, Callable[[], Worker]]) -> Iterator[dict[str, Worker]]:
    """Every side's process, one started after the other."""
    running: dict[str, Worker] = {}
    try:
        for name, make in start.items():
            running[name] = make()
        yield running
    finally:
        for worker in running.values():
            worker.close()


def in_turns(
    sides: Mapping[str, Worker], repeats: int, *, warmup: int = 1, message: Mapping[str, Any] | None = None
) -> dict[str, list[dict[str, Any]]]:
    """Answers of ``repeats`` rounds; in every other round the order is reversed. Those of ``warmup`` are dropped."""
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in sides}
    for number in range(warmup + repeats):
        names = list(sides)[:: 1 if number % 2 else -1]
        for name in names:
            answer = sides[name].ask(message)
            show(f"  round {number - warmup + 1:>2} {name:<28} {answer['seconds']:8.2f} s")
            if number >= warmup:
                found[name].append(answer)
    return found


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> dict[str, float | None]:
    """Geometric mean of the rounds' ratios, with Student's 95% interval of the logarithms."""
    logs = [math.log(a / b) for a, b in zip(ours, theirs, strict=True)]
    low, high = interval(logs)
    return {
        "ratio": math.exp(mean(logs)),
        "low": None if low is None else math.exp(low),
        "high": None if high is None else math.exp(high),
    }


def interval(values: Sequence[float]) -> tuple[float | None, float | None]:
    """Student's 95% interval of a mean; none of a single value."""
    if len(values) < 2:
        return None, None
    half = quantile(0.975, len(values) - 1) * stdev(values) / math.sqrt(len(values))
    return mean(values) - half, mean(values) + half


def summary(values: Sequence[float]) -> dict[str, float | None]:
    """Median, and the mean's interval."""
    low, high = interval(values)
    return {"median": median(values), "low": low, "high": high}


def peak_of_process() -> float:
    """Most memory that this process has used, in GiB, since the trainer restarted the count."""
    text = Path("/proc/self/status").read_text(encoding="ascii")
    return int(text.split("VmHWM:")[1].split()[0]) / (1 << 20)


def machine() -> dict[str, Any]:
    """The processor and its number of cores."""
    path = Path("/proc/cpuinfo")
    names = [line.split(":")[1].strip() for line in path.read_text().splitlines() if line.startswith("model name")]
    return {"processor": names[0] if names else platform.processor(), "cores": os.cpu_count()}


def record(benchmark: str, out: Path = RESULTS, **figures: Any) -> None:
    """Append a line of results, with the command and the machine."""
    command = shlex.join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:]])
    line = {"benchmark": benchmark, "command": command, "machine": machine(), **figures}
    out.parent.mkdir(parents=True, exist_ok=True)
    with out.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def show(line: str) -> None:
    """Print at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = ["| " + " | ".join(cells) + " |" for cells in (header, ["---"] * len(header), *rows)]
    return "\n".join(lines)

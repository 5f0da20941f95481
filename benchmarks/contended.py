"""How much longer a step takes while another process keeps every core busy.

    python benchmarks/contended.py [--recipe countdown_ppo] [--rounds 3] [--set KEY=VALUE ...]

Runs `reasonrl train` as a user would, with the threads that it chooses, and keeps the cores busy in every other pair of
steps. The first step of a pair, in which the load changes, does not count. Exits with status 1 if a step is more than
three times slower in company; half of the machine is the fair share, so 2 is the best that can be expected.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from measure import ratio, record, show, summary

from reasonrl.plugins import load_plugins
from reasonrl.recipe.load import load_recipe

MOST = 3.0
BUSY = "while True: pass"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recipe", default="countdown_ppo")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="more overrides of the recipe")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        alone, busy = measure(arguments.recipe, arguments.set, arguments.rounds, Path(folder) / "run")
    found = ratio(busy, alone)
    show(f"alone {summary(alone)['median']:.2f} s, busy {summary(busy)['median']:.2f} s: {found['ratio']:.2f} times")
    record(
        "contended",
        subject=arguments.recipe,
        rounds=arguments.rounds,
        alone=summary(alone),
        busy=summary(busy),
        times_slower=found,
    )
    return int((found["ratio"] or 0.0) > MOST)


def measure(recipe: str, overrides: Sequence[str], rounds: int, folder: Path) -> tuple[list[float], list[float]]:
    """Seconds of the counted steps: alone, and in company."""
    alone: list[float] = []
    busy: list[float] = []
    with training(recipe, overrides, 4 * rounds + 1, folder) as process:
        steps = follow(process, folder / "metrics.jsonl")
        next(steps)
        for _ in range(rounds):
            for found, count in ((alone, 0), (busy, os.cpu_count() or 1)):
                with kept_busy(count):
                    next(steps)
                    found.append(next(steps))
                show(f"  {'busy ' if count else 'alone'} {found[-1]:.2f} s")
    return alone, busy


@contextmanager
def training(recipe: str, overrides: Sequence[str], steps: int, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A run without evaluations and checkpoints."""
    suites = load_recipe(recipe, [], load_plugins()).recipe.evaluation.suites
    command = [
        sys.executable,
        "-m",
        "reasonrl",
        "train",
        recipe,
        f"trainer.steps={steps}",
        "optimizer.learning_rate=1e-12",
    ]
    command += [f"evaluation.suites.{name}=null" for name in suites]
    command += [
        "evaluation.every=0",
        "checkpoint.every=0",
        "logging.report=false",
        *overrides,
        "--run-dir",
        str(folder),
    ]
    with ExitStack() as stack:
        log = stack.enter_context((folder.parent / "log.txt").open("wb"))
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        stack.callback(process.wait)
        stack.callback(process.kill)
        yield process


def follow(process: subprocess.Popen[bytes], metrics: Path) -> Iterator[float]:
    """Seconds of each step, as soon as it is recorded."""
    seen = 0
    while True:
        lines = metrics.read_text().splitlines() if metrics.is_file() else []
        if len(lines) > seen:
            seen += 1
            yield float(json.loads(lines[seen - 1])["time/step_s"])
        elif process.poll() is not None:
            raise SystemExit((metrics.parent.parent / "log.txt").read_text()[-2000:])
        else:
            time.sleep(0.05)


@contextmanager
def kept_busy(count: int) -> Iterator[None]:
    """So many processes that do nothing but compute."""
    running = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(count)]
    try:
        yield
    finally:
        for process in running:
            process.kill()
            process.wait()


if __name__ == "__main__":
    sys.exit(main())

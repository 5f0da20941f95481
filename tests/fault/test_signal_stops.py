"""SIGINT and SIGTERM at any time: the right exit code, soon, a valid checkpoint, and an exact continuation."""

import json
import os
import random
import signal
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from support.processes import child
from support.resume_runs import assert_same_run, hang_in_the_save, resumable_recipe, run_in_child, wait_until

from reasonrl.rundir.checkpoints import find_newest_valid

CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}
FURTHER = {signal.SIGHUP: 129, signal.SIGQUIT: 131, signal.SIGUSR1: 138, signal.SIGUSR2: 140, signal.SIGXCPU: 152}
LIMIT_S = 10.0


def begun(run_dir: Path) -> bool:
    """The first evaluation is done: there is something to lose."""
    return (run_dir / "evals" / "step_000000" / "summary.json").exists()


def is_through(run_dir: Path) -> bool:
    summary = run_dir / "summary.json"
    return summary.exists() and json.loads(summary.read_text())["outcome"] == "completed"


def error_of(run_dir: Path) -> str:
    path = run_dir.with_name(f"{run_dir.name}.error")
    return path.read_text() if path.exists() else "no error was told"


def whole_run(recipe: Path, run_dir: Path) -> float:
    process = child(run_in_child, recipe, run_dir)
    wait_until(lambda: begun(run_dir), process)
    started = time.monotonic()
    process.join(120)
    assert process.exitcode == 0
    return time.monotonic() - started


def signal_often(folder: Path, model: Path, signals: int, seed: int) -> Counter[str]:
    """Runs that are stopped again and again at random times and resumed until they are through."""
    recipe, rng = resumable_recipe(folder, model), random.Random(seed)
    seconds = whole_run(recipe, folder / "whole")
    done: Counter[str] = Counter()
    while done["signals"] < signals:
        run_dir = folder / f"run-{done['runs']}"
        again: Path | None = recipe
        while True:
            process = child(run_in_child, again, run_dir)
            wait_until(lambda: begun(run_dir) and not (run_dir / "summary.json").exists(), process)  # noqa: B023
            process.join(rng.uniform(0, 0.6 * seconds))
            if not process.is_alive():
                break
            chosen, sent = rng.choice(list(CODES)), time.monotonic()
            os.kill(process.pid, chosen)
            process.join(60)
            if is_through(run_dir):
                # It had done everything before it noticed, or noticed after its handlers were gone again.
                assert process.exitcode in (0, CODES[chosen], -chosen)
                break
            assert process.exitcode == CODES[chosen], error_of(run_dir)
            assert time.monotonic() - sent < LIMIT_S
            assert find_newest_valid(run_dir) is not None
            again = None
            done["signals"] += 1
            done[chosen.name] += 1
        process.join(60)
        assert is_through(run_dir), error_of(run_dir)
        assert_same_run(folder / "whole", run_dir)
        done["runs"] += 1
    return done


@pytest.mark.fault
def test_six_signals(tiny_model: Path, tmp_path: Path) -> None:
    assert signal_often(tmp_path, tiny_model, signals=6, seed=0)["signals"] >= 6


@pytest.mark.long
def test_a_hundred_signals(tiny_model: Path, tmp_path: Path) -> None:
    done = signal_often(tmp_path, tiny_model, signals=100, seed=1)
    print(dict(done))  # noqa: T201 - the figures of `pytest -m long -s`
    assert done["signals"] >= 100
    assert min(done["SIGINT"], done["SIGTERM"]) >= 30


@pytest.mark.fault
def test_every_other_signal_of_a_scheduler_or_terminal_saves_and_resumes_exactly(
    tiny_model: Path, tmp_path: Path
) -> None:
    """One run, stopped by each of them in turn; stopped and continued (SIGTSTP, SIGCONT) each time before."""
    recipe, run_dir = resumable_recipe(tmp_path, tiny_model), tmp_path / "run"
    whole_run(recipe, tmp_path / "whole")
    again: Path | None = recipe
    # A run ignores what it was started to ignore: SIGHUP, if the tests run behind nohup.
    for chosen, code in ((s, c) for s, c in FURTHER.items() if signal.getsignal(s) != signal.SIG_IGN):
        process = child(run_in_child, again, run_dir)
        wait_until(lambda: begun(run_dir) and not (run_dir / "summary.json").exists(), process)
        for sent in (signal.SIGTSTP, signal.SIGCONT, chosen, chosen):
            with suppress(ProcessLookupError):  # ended before the second one
                os.kill(process.pid, sent)
        process.join(60)
        if is_through(run_dir):
            break
        assert process.exitcode == code, error_of(run_dir)
        again = None
    else:
        process = child(run_in_child, None, run_dir)
        process.join(120)
    assert is_through(run_dir)
    assert_same_run(tmp_path / "whole", run_dir)


@pytest.mark.fault
@pytest.mark.parametrize("second", list(CODES))
def test_the_second_signal_ends_at_once(second: signal.Signals, tiny_model: Path, tmp_path: Path) -> None:
    recipe = resumable_recipe(tmp_path, tiny_model)
    process: Any = child(hang_in_the_save, recipe, tmp_path / "run")
    wait_until((tmp_path / "run" / "hangs").exists, process)
    os.kill(process.pid, signal.SIGTERM)
    process.join(0.5)
    assert process.is_alive()
    sent = time.monotonic()
    os.kill(process.pid, second)
    process.join(30)
    assert process.exitcode == CODES[second]
    assert time.monotonic() - sent < 2

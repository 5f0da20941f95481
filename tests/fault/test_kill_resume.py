"""SIGKILL anywhere, resume, and the run ends as if nothing had happened, bit by bit."""

import random
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from support.processes import child
from support.resume_runs import assert_same_run, resumable_recipe, run_in_child, wait_until

SIGKILLED = -9
CALLS_OF_A_SAVE = 60  # of the file system, about


def finish(recipe: Path, run_dir: Path) -> float:
    """An uninterrupted run in a child; its seconds after the folder is there."""
    process = child(run_in_child, recipe, run_dir)
    wait_until((run_dir / "run.json").exists, process)
    started = time.monotonic()
    process.join(120)
    assert process.exitcode == 0, run_dir.with_name(f"{run_dir.name}.error").read_text()
    return time.monotonic() - started


def kill_somewhere(recipe: Path | None, run_dir: Path, rng: random.Random, seconds: float, aimed: bool) -> bool:
    """Go on with the run until it is killed; False if it ended before that. ``aimed`` at a call of a save."""
    dies_at = rng.randint(1, 3 * CALLS_OF_A_SAVE) if aimed else 0
    process = child(run_in_child, recipe, run_dir, dies_at)
    if not aimed:
        wait_until((run_dir / "run.json").exists, process)
        process.join(rng.uniform(0, 0.6 * seconds))
        process.kill()
    process.join(120)
    assert process.exitcode in (0, SIGKILLED), run_dir.with_name(f"{run_dir.name}.error").read_text()
    return process.exitcode == SIGKILLED


def kill_often(folder: Path, model: Path, kills: int, in_saves: int, seed: int, **sections: Any) -> Counter[str]:
    """Runs of 30 steps, each killed up to six times, until there were so many kills; every run is compared.

    A kill counts as one inside a save if it left something unfinished among the checkpoints.
    """
    recipe, rng = resumable_recipe(folder, model, **sections), random.Random(seed)
    seconds = finish(recipe, folder / "whole")
    done: Counter[str] = Counter()
    while done["kills"] < kills or done["in_save"] < in_saves:
        run_dir = folder / f"run-{done['runs']}"
        for attempt in range(6):
            aimed = rng.random() < 0.5
            if not kill_somewhere(None if attempt else recipe, run_dir, rng, seconds, aimed):
                break
            done["kills"] += 1
            done["in_save"] += any((run_dir / "checkpoints").glob(".*"))
        if not (run_dir / "summary.json").exists():
            process = child(run_in_child, None, run_dir)
            process.join(120)
            assert process.exitcode == 0, run_dir.with_name(f"{run_dir.name}.error").read_text()
        assert_same_run(folder / "whole", run_dir)
        done["runs"] += 1
    return done


@pytest.mark.fault
def test_twenty_kills(tiny_model: Path, tmp_path: Path) -> None:
    done = kill_often(tmp_path, tiny_model, kills=20, in_saves=6, seed=0)
    assert done["kills"] >= 20
    assert done["in_save"] >= 6


@pytest.mark.long
def test_twenty_kills_of_conversations(tiny_model: Path, tmp_path: Path) -> None:
    sampling = {"group_size": 2, "max_prompt_tokens": 20, "max_completion_tokens": 24, "stop": ["a", "b", "c", "d"]}
    done = kill_often(tmp_path, tiny_model, kills=20, in_saves=3, seed=2, task={"name": "talk"}, sampling=sampling)
    assert done["kills"] >= 20


@pytest.mark.long
def test_two_hundred_kills(tiny_model: Path, tmp_path: Path) -> None:
    done = kill_often(tmp_path, tiny_model, kills=200, in_saves=60, seed=1)
    print(dict(done))  # noqa: T201 - the figures of `pytest -m long -s`
    assert done["kills"] >= 200
    assert done["in_save"] >= 60

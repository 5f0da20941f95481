"""Two processes, one run folder: one of them works, the other says that it is in use."""

from pathlib import Path

import pytest
from support.processes import child, server
from support.resume_runs import cut_back, go, race, resumable_recipe


def rounds(folder: Path, model: Path, number: int) -> None:
    """Starts and resumes in turn."""
    recipe = resumable_recipe(folder, model, rollout_backend={"name": "script"}, evaluation=None)
    go(recipe, folder / "done", "trainer.steps=1")
    for n in range(number):
        run_dir = folder / f"run-{n}"
        resumes = n % 2 == 1
        if resumes:
            cut_back(folder / "done", run_dir, 0)
        barrier, ends = server().Barrier(2), server().Barrier(2)
        racers = [child(race, None if resumes else recipe, run_dir, barrier, ends) for _ in range(2)]
        for racer in racers:
            racer.join(120)
        error = run_dir.with_name(f"{run_dir.name}.error")
        assert sorted(r.exitcode for r in racers) == [0, 3], error.read_text() if error.exists() else n
        assert (run_dir / "checkpoints" / "step_000001" / "manifest.json").is_file()


@pytest.mark.fault
def test_ten_races(tiny_model: Path, tmp_path: Path) -> None:
    rounds(tmp_path, tiny_model, 10)


@pytest.mark.long
def test_a_hundred_races(tiny_model: Path, tmp_path: Path) -> None:
    rounds(tmp_path, tiny_model, 100)

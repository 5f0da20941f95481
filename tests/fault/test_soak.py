"""Thousands of steps leave memory and file handles as they were."""

from pathlib import Path

import numpy as np
import pytest
from support.processes import child, server
from support.resume_runs import resumable_recipe, soak_run

MAX_SLOPE = 1e6
"""Bytes per 100 steps."""


def soak(folder: Path, model: Path, steps: int) -> tuple[float, set[int]]:
    """Slope of the resident memory over the second half, in bytes per 100 steps, and the numbers of open files."""
    recipe = resumable_recipe(
        folder,
        model,
        trainer={"steps": steps, "prompts_per_step": 2},
        checkpoint={"every": 50, "keep": 2},
        evaluation={"every": 100, "suites": {"held_out": {"problems": 2}}},
    )
    samples = server().Queue()
    process = child(soak_run, recipe, folder / "run", samples)
    seen = []
    while (sample := samples.get(timeout=120)) is not None:
        seen.append(sample)
    process.join(60)
    assert process.exitcode == 0
    half = seen[len(seen) // 2 :]
    slope = float(np.polyfit([step for step, _, _ in half], [rss for _, rss, _ in half], 1)[0])
    return 100 * slope, {handles for _, _, handles in seen}


@pytest.mark.fault
def test_two_hundred_steps_leak_no_file_handles(tiny_model: Path, tmp_path: Path) -> None:
    _, handles = soak(tmp_path, tiny_model, 200)
    assert len(handles) == 1


@pytest.mark.long
def test_two_thousand_steps_leak_nothing(tiny_model: Path, tmp_path: Path) -> None:
    slope, handles = soak(tmp_path, tiny_model, 2000)
    print(f"{slope / 1e6:.3f} MB per 100 steps, open files {handles}")  # noqa: T201 - for `pytest -m long -s`
    assert slope < MAX_SLOPE
    assert len(handles) == 1
    assert len(list((tmp_path / "run" / "checkpoints").iterdir())) <= 3  # the last two and the best

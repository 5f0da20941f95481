"""A run that is resumed after any of its steps ends like one that was not, bit by bit."""

from pathlib import Path

import pytest
from support.resume_runs import ALGORITHMS, assert_same_run, cut_back, go, whole_run

STEPS = 6


@pytest.mark.fault
@pytest.mark.parametrize("update_epochs", [1, 2])
@pytest.mark.parametrize("minibatches", [1, 4])
@pytest.mark.parametrize("algorithm", list(ALGORITHMS))
def test_resumed_after_every_step(
    algorithm: str, minibatches: int, update_epochs: int, tiny_model: Path, tmp_path: Path
) -> None:
    trainer = {
        "steps": STEPS,
        "prompts_per_step": 4,
        "minibatches": minibatches,
        "update_epochs": update_epochs,
    }
    run = whole_run(tmp_path, tiny_model, trainer=trainer, rollout_backend={"name": "script"}, **ALGORITHMS[algorithm])
    for step in range(1, STEPS):
        copy = cut_back(run, tmp_path / f"from-{step}", step)
        go(None, copy)
        assert_same_run(run, copy)

"""The losses of twenty steps on scripted rollouts are the committed ones.

Tolerance: 1e-3 of the value or 1e-5. Other CPUs and versions of torch add up in another order, and twenty optimizer
steps amplify that; a wrong sign, mask, weight or normalization is larger by orders of magnitude.
"""

import json
from pathlib import Path

import pytest
from support.golden_runs import GOLDEN, KEYS, STEPS, losses
from support.resume_runs import ALGORITHMS


@pytest.mark.parametrize("algorithm", list(ALGORITHMS))
def test_losses_are_the_committed_ones(algorithm: str, tiny_model: Path, tmp_path: Path) -> None:
    wanted = json.loads(GOLDEN.read_text())[algorithm]
    got = losses(algorithm, tiny_model, tmp_path)
    assert len(got) == len(wanted) == STEPS
    for key in KEYS:
        values = [step[key] for step in got]
        assert values == pytest.approx([step[key] for step in wanted], rel=1e-3, abs=1e-5), key

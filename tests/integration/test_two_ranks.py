"""Two processes learn exactly what one learns."""

from pathlib import Path

import pytest
import torch
from support.processes import on_ranks
from support.ranks_worker import save_share, update_share


def on_two_ranks(name: str, minibatches: int, path: Path) -> dict:
    done = on_ranks(2, save_share, name, minibatches, path)
    assert done.returncode == 0, done.stderr[-3000:]
    return torch.load(path, weights_only=True)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "minibatches"), [("ppo_kl_reward", 2), ("grpo", 1)])
def test_one_and_two_processes_take_the_same_steps(name: str, minibatches: int, tmp_path: Path) -> None:
    one = update_share(name, minibatches)
    two = on_two_ranks(name, minibatches, tmp_path / "two.pt")
    for key, value in one.parameters.items():
        torch.testing.assert_close(value, two["parameters"][key], rtol=0.0, atol=1e-9, msg=key)
    for key, number in one.metrics.items():
        if not key.startswith("batch/"):
            assert number == pytest.approx(two["metrics"][key], rel=1e-6, abs=1e-9), key

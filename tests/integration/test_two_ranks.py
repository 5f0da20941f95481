"""Two processes learn exactly what one learns."""

from collections.abc import Sequence
from itertools import product
from pathlib import Path

import pytest
import torch
from support.processes import on_ranks
from support.ranks_worker import Setup, save_share, save_updates, update_share, update_with


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


GRPO = [
    Setup(case, lora, "shared", saves)
    for case, lora, saves in product(("grpo", "grpo_sequence_kl"), *[(False, True)] * 2)
]
PPO = [
    Setup(case, lora, critic, saves)
    for case, lora, critic, saves in product(
        ("ppo", "ppo_kl_loss"), (False, True), ("shared", "separate"), (False, True)
    )
]
# Every pair of algorithm, reference, LoRA, critic and checkpointing.
PAIRS = [
    Setup("grpo", True, "shared", True),
    Setup("grpo_sequence_kl", False, "shared", False),
    Setup("ppo", False, "separate", True),
    Setup("ppo", True, "shared", False),
    Setup("ppo_kl_loss", True, "separate", False),
    Setup("ppo_kl_loss", False, "shared", True),
]


@pytest.mark.parametrize(
    "setups",
    [
        pytest.param(PAIRS, marks=pytest.mark.slow, id="pairs"),
        pytest.param(GRPO + PPO, marks=pytest.mark.long, id="all"),
    ],
)
def test_replicated_and_sharded_updates_are_those_of_one_process(setups: Sequence[Setup], tmp_path: Path) -> None:
    """The same weights in float64, with DDP and with FSDP2."""
    done = on_ranks(2, save_updates, setups, tmp_path / "two.pt")
    assert done.returncode == 0, done.stderr[-6000:]
    found = torch.load(tmp_path / "two.pt", weights_only=True)
    for setup in setups:
        one = update_with(setup).parameters
        for sharded in (False, True):
            two = found[*setup, sharded]
            assert two.keys() == one.keys()
            for key, value in one.items():
                torch.testing.assert_close(two[key], value, rtol=0.0, atol=1e-9, msg=f"{setup} {sharded} {key}")

"""One scripted update on this rank's share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from accelerate import PartialState
from support.scripted import CASES, Outcome, run_update, scripted_groups, tiny_policy

from reasonrl.recipe.schema import LoraConfig, ModelConfig
from reasonrl.trainer.microbatch import list_local_prompts


class Setup(NamedTuple):
    """What is trained, and how: ``case`` is a name of ``CASES``."""

    case: str
    lora: bool = False
    critic: Literal["shared", "separate"] = "shared"
    checkpointing: bool = False

    def model(self) -> ModelConfig:
        lora = LoraConfig(rank=2) if self.lora else None
        return ModelConfig(path="tiny", lora=lora, gradient_checkpointing=self.checkpointing)


def update_with(setup: Setup, **options: Any) -> Outcome:
    """One update of two minibatches by this process's share of the scripted rollouts."""
    state = PartialState(cpu=True)
    groups = scripted_groups(8, 2)
    mine = list_local_prompts(8, 2, state.num_processes, state.process_index)
    case = CASES[setup.case]
    policy = tiny_policy(case, critic=setup.critic, model=setup.model())
    share = [groups[i] for i in mine]
    return run_update(case, policy, share, group_size=2, max_tokens=30, minibatches=2, **options)


def save_updates(setups: Sequence[Setup], path: Path) -> None:
    """On each of the ranks, with DDP and with FSDP2; the first one saves the parameters."""
    outcomes = {
        (setup, sharded): update_with(setup, sharded=sharded).parameters
        for setup in setups
        for sharded in (False, True)
    }
    state = PartialState()
    assert state.num_processes == 2, state.num_processes
    if state.is_main_process:
        torch.save({(*setup, sharded): found for (setup, sharded), found in outcomes.items()}, path)


def update_share(name: str, minibatches: int) -> Outcome:
    state = PartialState(cpu=True)
    groups = scripted_groups(8, 2)
    mine = list_local_prompts(8, minibatches, state.num_processes, state.process_index)
    return run_update(
        CASES[name],
        tiny_policy(CASES[name]),
        [groups[i] for i in mine],
        group_size=2,
        max_tokens=30,
        minibatches=minibatches,
    )


def save_share(name: str, minibatches: int, path: Path) -> None:
    """On one of two ranks; the first one saves what came out."""
    outcome = update_share(name, minibatches)
    state = PartialState()
    assert state.num_processes == 2, state.num_processes
    if state.is_main_process:
        torch.save({"parameters": outcome.parameters, "metrics": outcome.metrics}, path)

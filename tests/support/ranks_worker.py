"""One scripted update on this rank's share."""

from pathlib import Path

import torch
from accelerate import PartialState
from support.scripted import CASES, Outcome, run_update, scripted_groups, tiny_policy

from reasonrl.trainer.microbatch import list_local_prompts


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
    state.destroy_process_group()

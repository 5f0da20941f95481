"""One scripted update on this rank's share. Run by torch's launcher, rank 0 saves what came out."""

import sys

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


def main() -> None:
    name, minibatches, path = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    outcome = update_share(name, minibatches)
    state = PartialState()
    assert state.num_processes == 2, state.num_processes
    if state.is_main_process:
        torch.save({"parameters": outcome.parameters, "metrics": outcome.metrics}, path)
    state.destroy_process_group()


if __name__ == "__main__":
    main()

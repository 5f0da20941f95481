"""Checkpoints of a trainer: all ranks gather, rank 0 writes; and the way back, bit by bit."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from reasonrl.checkpoint.tensors import gather, scatter
from reasonrl.errors import CheckpointError
from reasonrl.model.export import gather_model, write_model
from reasonrl.recipe.schema import CheckpointConfig
from reasonrl.trainer.logbook import Logbook
from reasonrl.trainer.ranks import Ranks
from reasonrl.trainer.state import TrainState

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Saver:
    """What is saved and where. ``policy`` and ``optimizer`` as accelerate prepared them."""

    policy: Any
    optimizer: Any
    tokenizer: Any
    ranks: Ranks
    logbook: Logbook
    config: CheckpointConfig
    identity: Mapping[str, Any]

    def save(self, state: TrainState, *, is_due: bool = True) -> None:
        """``is_due``: on the recipe's schedule, not because the run stops here.

        Raises: CheckpointError on every rank if rank 0 could not write; earlier checkpoints are untouched.
        """
        self.logbook.phase("saving")
        weights, tensors = gather_model(self.policy), gather(self.policy, self.optimizer)
        whole = replace(state, identity=self.identity, machine=machine(self.ranks))

        def write(folder: Path) -> None:
            write_model(self.policy, self.tokenizer, folder, weights)
            tensors.write(folder)

        failure: CheckpointError | None = None
        try:
            self.logbook.save(
                whole, write, keep=self.config.keep, keep_best=self.config.keep_best, is_due=is_due
            )
        except CheckpointError as err:
            failure = err
        if self.ranks.max(int(failure is not None)):  # a barrier, too: nobody trains on while rank 0 writes
            raise failure or CheckpointError("rank 0 cannot save its checkpoint; its message says why")

    def restore(self, folder: Path, state: TrainState) -> None:
        """Put a verified checkpoint into policy and optimizer."""
        scatter(self.policy, self.optimizer, folder)
        now = machine(self.ranks)
        changed = [
            f"{key} {state.machine.get(key)} -> {now[key]}"
            for key in now
            if state.machine.get(key) != now[key]
        ]
        if changed and self.ranks.is_main:
            log.warning("resumed, but not bit by bit as without a break: %s", ", ".join(changed))


def machine(ranks: Ranks) -> dict[str, Any]:
    """On what the arithmetic depends beside the recipe."""
    return {
        "device": ranks.device.type,
        "processes": ranks.size,
        "threads": torch.get_num_threads(),
        "torch": str(torch.__version__),
    }

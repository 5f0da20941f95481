"""Checkpoints of a trainer: all ranks gather, rank 0 writes; and the way back, bit by bit."""

import gc
import logging
import traceback
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from reasonrl.checkpoint.tensors import gather, scatter
from reasonrl.errors import is_out_of_memory
from reasonrl.model.export import gather_model, write_adapters, write_model
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

    @property
    def needs_all_ranks(self) -> bool:
        """Whether the weights are spread over the ranks, so that none can save them alone."""
        return any(hasattr(parameter, "full_tensor") for parameter in self.policy.parameters())

    def release(self, error: BaseException) -> None:
        """Make room for saving after ``error`` ended a step: what the step still holds in memory has no more use."""
        self.optimizer.zero_grad(set_to_none=True)
        if is_out_of_memory(error):
            for one in _chain(error):
                traceback.clear_frames(one.__traceback__)
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()

    def save(self, state: TrainState, *, is_due: bool = True, is_alone: bool = False) -> None:
        """Write the checkpoint of ``state.step``.

        Args:
            is_due: on the recipe's schedule, not because the run stops here.
            is_alone: rank 0 calls it by itself, since it is out of step with the others.

        Raises:
            CheckpointError: or another error on every rank if rank 0 could not write; earlier checkpoints are
                untouched.
        """
        self.logbook.phase("saving")
        weights, tensors = gather_model(self.policy), gather(self.policy, self.optimizer)
        whole = replace(state, identity=self.identity, machine=machine(self.ranks))

        def write(folder: Path) -> None:
            write_model(self.policy, self.tokenizer, folder, weights)
            write_adapters(self.policy, folder, tensors.of_model())
            tensors.write(folder)

        # One that is not whole takes no whole one's place.
        keep = self.config.keep + bool(state.unfinished)
        # Together, it is a barrier: nobody trains on while rank 0 writes.
        with nullcontext() if is_alone else self.ranks.together():
            self.logbook.save(whole, write, keep=keep, keep_best=self.config.keep_best, is_due=is_due)

    def restore(self, folder: Path, state: TrainState) -> None:
        """Put a verified checkpoint into policy and optimizer."""
        scatter(self.policy, self.optimizer, folder)
        now = machine(self.ranks)
        changed = [f"{key} {state.machine.get(key)} -> {now[key]}" for key in now if state.machine.get(key) != now[key]]
        if state.unfinished:
            changed.append(f"{state.unfinished} optimizer steps of step {state.step + 1} are in it already")
        if changed and self.ranks.is_main:
            log.warning("resumed, but not bit by bit as without a break: %s", ", ".join(changed))


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and what led to it."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        yield error
        seen.add(id(error))
        error = error.__cause__ or error.__context__


def machine(ranks: Ranks) -> dict[str, Any]:
    """On what the arithmetic depends beside the recipe."""
    return {
        "device": ranks.device.type,
        "processes": ranks.size,
        "threads": torch.get_num_threads(),
        "torch": str(torch.__version__),
    }

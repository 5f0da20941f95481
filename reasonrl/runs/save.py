"""Save and restore the checkpoints of a run, bit-exactly. All ranks gather the tensors, rank 0 writes them."""

import gc
import logging
import traceback
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from reasonrl.errors import is_out_of_memory
from reasonrl.model.export import gather_model, write_adapters, write_model
from reasonrl.recipe.schema import CheckpointConfig
from reasonrl.rundir.checkpoints import new_checkpoint
from reasonrl.rundir.layout import step_dir
from reasonrl.runs.record import RunWriter
from reasonrl.runs.state import Headline, Identity, Records, TrainState
from reasonrl.runs.tensors import TensorState, gather, scatter
from reasonrl.trainer.job import Job
from reasonrl.trainer.memory import gpu_name
from reasonrl.trainer.ranks import Ranks

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ResumePoint:
    """A verified checkpoint and the state in it."""

    folder: Path
    state: TrainState


@dataclass(kw_only=True, slots=True)
class Checkpointer:
    """Saves a job into ``checkpoints/`` of a run folder and restores it. Every rank calls it.

    ``run_dir`` is None on ranks other than 0. ``best``: step, suite and accuracy of the best saved step.
    """

    run_dir: Path | None
    ranks: Ranks
    tokenizer: "PreTrainedTokenizerBase"
    config: CheckpointConfig
    identity: Identity
    writer: RunWriter
    best: Headline | None = None
    model_path: Path | None = None

    def save(self, job: Job, state: TrainState, *, is_due: bool = True, is_alone: bool = False) -> None:
        """Write the checkpoint of ``state.step``.

        Args:
            job: the trainer, between two steps.
            state: where the run stands.
            is_due: on the recipe's schedule, not because the run stops here.
            is_alone: rank 0 calls it by itself, since it is out of step with the others.

        Raises:
            CheckpointError: or another error on every rank if rank 0 could not write; earlier checkpoints are
                untouched.
        """
        weights = gather_model(job.policy, keep=self.run_dir is not None)
        tensors = gather(job.policy, job.optimizer)
        # Together, it is a barrier: no rank trains on while rank 0 writes.
        with nullcontext() if is_alone else self.ranks.together():
            if self.run_dir is not None:
                self._write(self.run_dir, job, state, weights, tensors, is_due=is_due)

    def _write(
        self,
        run_dir: Path,
        job: Job,
        state: TrainState,
        weights: Mapping[str, Tensor],
        tensors: TensorState,
        *,
        is_due: bool,
    ) -> None:
        best = self._choose_best(state.step, is_due=is_due)
        # An incomplete checkpoint replaces no complete one.
        keep = self.config.keep + bool(state.unfinished)
        with new_checkpoint(run_dir, state.step, keep=keep, best=best["step"] if best else None) as folder:
            write_model(job.policy, self.tokenizer, folder, weights)
            write_adapters(job.policy, folder, tensors.of_model())
            tensors.write(folder)
            records: Records = {**self.writer.state(), "best": best}
            replace(state, records=records, identity=self.identity, machine=machine(self.ranks)).write(folder)
        self.best, self.model_path = best, step_dir(run_dir, state.step)

    def _choose_best(self, step: int, *, is_due: bool) -> Headline | None:
        """The best saved step by the first suite's accuracy, ``step`` included; the first of equals.

        A checkpoint that is not due is not a candidate: where a run was stopped must not change what it keeps.
        """
        last = self.writer.last_evaluation
        if not (self.config.keep_best and is_due) or last.get("step") != step:
            return self.best
        if self.best and self.best["accuracy"] >= last["accuracy"]:
            return self.best
        return {"step": step, "suite": last["suite"], "accuracy": last["accuracy"]}

    def start_from(self, point: ResumePoint) -> None:
        """Remember what the checkpoint says of earlier ones; the tensors follow in ``restore``."""
        best = point.state.records["best"]
        is_there = best and (self.run_dir is None or step_dir(self.run_dir, best["step"]).is_dir())
        self.best = best if is_there else None
        self.model_path = point.folder if self.run_dir is not None else None

    def restore(self, job: Job, point: ResumePoint) -> None:
        """Load a verified checkpoint into the job: its tensors, then its progress."""
        state = point.state
        scatter(job.policy, job.optimizer, point.folder)
        now = machine(self.ranks)
        changed = [f"{key} {state.machine.get(key)} -> {now[key]}" for key in now if state.machine.get(key) != now[key]]
        if state.unfinished:
            changed.append(f"{state.unfinished} optimizer steps of step {state.step + 1} are already applied")
        if changed and self.ranks.is_main:
            log.warning("resumed, but not bit-exact: %s", ", ".join(changed))
        job.restore(state.progress, state.carried, state.pending)


def needs_all_ranks(job: Job) -> bool:
    """Whether the weights are sharded over the ranks, so that none can save them alone."""
    return any(hasattr(parameter, "full_tensor") for parameter in job.policy.parameters())


def free_memory(job: Job, error: BaseException) -> None:
    """Make room for saving after ``error`` ended a step, whose tensors are still held."""
    job.optimizer.zero_grad(set_to_none=True)
    if is_out_of_memory(error):
        for one in _chain(error):
            traceback.clear_frames(one.__traceback__)
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and what led to it."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        yield error
        seen.add(id(error))
        error = error.__cause__ or error.__context__


def machine(ranks: Ranks) -> dict[str, object]:
    """What the arithmetic depends on beside the recipe."""
    return {
        "device": ranks.device.type,
        "gpu": gpu_name(ranks.device),
        "processes": ranks.size,
        "threads": torch.get_num_threads(),
        "torch": str(torch.__version__),
    }

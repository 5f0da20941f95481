"""Save and restore the checkpoints of a run, bit-exactly."""

import gc
import logging
import traceback
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from reasonrl.errors import is_out_of_memory
from reasonrl.model.export import write_adapters, write_description
from reasonrl.recipe.schema import CheckpointConfig
from reasonrl.rundir.checkpoints import new_checkpoint
from reasonrl.rundir.layout import step_dir
from reasonrl.rundir.manifest import Entry
from reasonrl.runs.record import RunWriter
from reasonrl.runs.state import Headline, Identity, Records, TrainState, explained_content
from reasonrl.runs.tensors import TensorWriter, needs_all_ranks, read_adapters, restore_tensors
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
            CheckpointError: or another error on every rank if one could not write; earlier checkpoints are
                untouched.
        """
        is_shared = needs_all_ranks(job.policy)
        # Together, it is a barrier: no rank trains on while another one writes.
        meet = nullcontext if is_alone else self.ranks.together
        best = self._choose_best(state.step, is_due=is_due)
        entries: dict[str, Entry] = {}
        with ExitStack() as stack:
            with meet():
                folder = stack.enter_context(self._open(state, best, entries)) if self.run_dir is not None else None
                if folder is not None:
                    write_description(job.policy, self.tokenizer, folder)
            folder = self.ranks.broadcast(folder and folder.absolute()) if is_shared else folder
            writer = TensorWriter(ranks=self.ranks, folder=folder, is_shared=is_shared, meet=meet, entries=entries)
            writer.write(job.policy, job.optimizer)
            with meet():
                if self.run_dir is not None and folder is not None:
                    self._finish(folder, job, state, best)
                stack.close()  # synced, hashed, moved into place
        if self.run_dir is not None:
            self.best, self.model_path = best, step_dir(self.run_dir, state.step)

    def _open(
        self, state: TrainState, best: Headline | None, entries: Mapping[str, Entry]
    ) -> AbstractContextManager[Path]:
        assert self.run_dir is not None
        self.writer.check_there()
        # An incomplete checkpoint replaces no complete one.
        keep = self.config.keep + bool(state.unfinished)
        return new_checkpoint(self.run_dir, state.step, keep=keep, best=best["step"] if best else None, known=entries)

    def _finish(self, folder: Path, job: Job, state: TrainState, best: Headline | None) -> None:
        write_adapters(job.policy, folder, lambda: read_adapters(folder))
        records: Records = {**self.writer.state(), "best": best}
        replace(state, records=records, identity=self.identity, machine=machine(self.ranks)).write(folder)

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
        restore_tensors(job.policy, job.optimizer, point.folder)
        now = machine(self.ranks)
        changed = [f"{key} {state.machine.get(key)} -> {now[key]}" for key in now if state.machine.get(key) != now[key]]
        if state.unfinished:
            changed.append(f"{state.unfinished} optimizer steps of step {state.step + 1} are already applied")
        if changed and self.ranks.is_main:
            log.warning("resumed, but not bit-exact: %s", ", ".join(changed))
        with explained_content(point.folder):
            job.restore(state.progress, state.carried, state.pending)


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

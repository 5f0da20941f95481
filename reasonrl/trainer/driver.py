"""From step to step: evaluation, record, checkpoint and stop, the same for every trainer."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from reasonrl.contracts.data import ScoredGroup, StepRecord
from reasonrl.errors import RAISABLE, CheckpointError, TrainingError, describe
from reasonrl.trainer.logbook import Logbook
from reasonrl.trainer.ranks import Ranks
from reasonrl.trainer.saving import Saver
from reasonrl.trainer.signals import StopRequested, StopSignals
from reasonrl.trainer.state import TrainState
from reasonrl.trainer.timing import Timer

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class StepOutcome:
    """A finished step. ``diagnosis``: why no further one makes sense; empty = all is well."""

    record: StepRecord
    groups: Sequence[ScoredGroup] = ()
    diagnosis: str = ""


class Job(Protocol):
    """A trainer."""

    def step(self, step: int) -> StepOutcome: ...
    def evaluate(self, step: int) -> dict[str, float]: ...

    @property
    def optimizer_steps(self) -> int:
        """Optimizer steps that this process has begun; only they change the tensors."""
        ...

    def progress(self) -> dict[str, Any]:
        """JSON, a copy: with the tensors, all that the next step depends on. Asked between steps; all ranks call it."""
        ...

    def restore(self, progress: Mapping[str, Any]) -> None:
        """Take over what ``progress`` told in another process."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """When what is due. 0 = only at the end; the last step is evaluated and saved anyway."""

    total_steps: int
    evaluation_every: int
    checkpoint_every: int

    def is_evaluated(self, step: int) -> bool:
        return step in (0, self.total_steps) or _due(step, self.evaluation_every)

    def is_saved(self, step: int) -> bool:
        return step == self.total_steps or (step > 0 and _due(step, self.checkpoint_every))


class Driver:
    """Runs a job from its beginning, or from the state of a checkpoint that was put back before."""

    def __init__(
        self,
        job: Job,
        plan: Plan,
        *,
        saver: Saver,
        logbook: Logbook,
        ranks: Ranks,
        stop: StopSignals,
        state: TrainState | None = None,
    ) -> None:
        self._job, self._plan = job, plan
        self._saver, self._logbook, self._ranks, self._stop = saver, logbook, ranks, stop
        self._state = state or TrainState(is_recorded=False)
        self._saved_step = state.step if state else -1
        self._save_s = 0.0
        self._is_saving = False
        self._optimizer_steps = 0  # when the last step was finished

    def run(self) -> None:
        """All steps that are left.

        Raises:
            StopRequested: if a signal asked for it.
            Exception: whatever a step or an evaluation raises, after the last finished step was saved.
        """
        self._stop.defer(self._ranks.max if self._ranks.size > 1 else None)
        try:
            self._run()
        except StopRequested as err:
            if self._saved_step != self._state.step:
                self._warn(f"{err}: saving step {self._state.step}; a second signal ends at once")
                self._save(is_due=False)
            raise
        except BaseException as err:
            self._rescue(err)
            raise

    def _run(self) -> None:
        self._state = replace(self._state, progress=self._job.progress())
        if not self._state.is_recorded:
            self._close(())
        while self._state.step < self._plan.total_steps:
            self._stop.check()
            step = self._state.step + 1
            outcome = self._job.step(step)
            record = {"metrics": dict(outcome.record.metrics), "timing_s": dict(outcome.record.timing_s)}
            self._state = TrainState(step=step, is_recorded=False, record=record, progress=self._job.progress())
            self._optimizer_steps = self._job.optimizer_steps
            self._logbook.transcribe(step, outcome.groups)
            self._close(outcome.groups, outcome.diagnosis)

    def _close(self, groups: Sequence[ScoredGroup], diagnosis: str = "") -> None:
        """What follows a step: evaluate, record, save."""
        step, timer = self._state.step, Timer()
        if self._state.record is not None:
            self._logbook.show(StepRecord(step=step, **self._state.record), groups)
        metrics: Mapping[str, float] = {}
        if not diagnosis and self._plan.is_evaluated(step):
            with timer("evaluation_s"), self._stop.interruptible():
                metrics = self._job.evaluate(step)
        if self._state.record is not None:
            self._record(self._state.record, metrics, timer, groups)
        self._state = replace(self._state, is_recorded=True, record=None)
        if diagnosis or self._plan.is_saved(step):
            self._save(is_due=not diagnosis)
        if diagnosis:
            raise TrainingError(diagnosis)

    def _record(
        self,
        record: Mapping[str, Any],
        metrics: Mapping[str, float],
        timer: Timer,
        groups: Sequence[ScoredGroup],
    ) -> None:
        if self._save_s:
            timer.seconds["checkpoint_s"] = self._save_s
            self._save_s = 0.0
        timing = {key: value for key, value in timer.metrics().items() if value > 1e-3}
        whole = StepRecord(
            step=self._state.step,
            metrics={**record["metrics"], **metrics},
            timing_s={**record["timing_s"], **timing},
        )
        self._logbook.record(whole, groups)

    def _rescue(self, error: BaseException) -> None:
        """Save the last finished step if memory still holds it. Raises nothing: ``error`` is what is to be reported."""
        step, begun = self._state.step, self._job.optimizer_steps - self._optimizer_steps
        if self._saved_step == step or (begun and step == 0):
            return  # nothing to lose
        if self._is_saving and (self._ranks.size > 1 or isinstance(error, CheckpointError)):
            return  # the other ranks do not try again, or the disk is full
        is_shared = self._ranks.shares(error)
        try:
            if not is_shared and self._saver.needs_all_ranks:
                self._warn(
                    f"step {step} is not saved: one process alone has failed, and each holds a part of the weights"
                )
            elif is_shared or self._ranks.is_main:
                self._warn(_rescue_text(step, begun))
                self._saver.release(error)
                self._state = replace(self._state, unfinished=begun)
                self._save(is_due=False, is_alone=not is_shared)
        except RAISABLE as second:
            log.error("step %d is not saved: %s", step, describe(second))

    def _warn(self, text: str) -> None:
        if self._ranks.is_main:
            log.warning("%s", text)

    def _save(self, *, is_due: bool, is_alone: bool = False) -> None:
        timer = Timer()
        self._is_saving = True
        with timer("checkpoint_s"):
            self._saver.save(self._state, is_due=is_due, is_alone=is_alone)
        self._is_saving = False
        self._saved_step = self._state.step
        self._save_s = timer.seconds["checkpoint_s"]


def _rescue_text(step: int, begun: int) -> str:
    if not begun:
        return f"saving step {step}, the last one that was finished"
    return (
        f"step {step + 1} broke off in its update: saving step {step} with {begun} optimizer step"
        f"{'s' if begun > 1 else ''} of step {step + 1} in it; resume repeats step {step + 1}, so the run will not be "
        "bit by bit what it would have been; the checkpoint before this one is kept"
    )


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0

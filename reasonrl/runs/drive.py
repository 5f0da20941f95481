"""Drive the steps of any trainer: evaluate, record, save checkpoints, stop."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace

from reasonrl.contracts.data import ScoredGroup, StepRecord
from reasonrl.errors import RAISABLE, CheckpointError, TrainingError, describe
from reasonrl.redact import redact_keys
from reasonrl.runs.open import OpenRun
from reasonrl.runs.save import free_memory
from reasonrl.runs.state import TrainState
from reasonrl.runs.tensors import needs_all_ranks
from reasonrl.signals import StopRequested
from reasonrl.trainer.evaluator import Evaluator, suite_metrics
from reasonrl.trainer.job import Job
from reasonrl.trainer.optim import set_learning_rate
from reasonrl.trainer.timing import Timer

log = logging.getLogger(__name__)


class Driver:
    """Runs a job from its beginning, or from the checkpoint that the run resumes from."""

    def __init__(self, job: Job, evaluator: Evaluator, run: OpenRun) -> None:
        self._job, self._evaluator, self._run = job, evaluator, run
        self._ranks = run.checkpointer.ranks
        self._state, self._saved_step = TrainState(is_recorded=False), -1
        if run.point is not None:
            run.checkpointer.restore(job, run.point)
            self._state, self._saved_step = run.point.state, run.point.state.step
        self._save_s = 0.0
        self._is_saving = False
        self._optimizer_steps = 0  # when the last step was finished

    def drive(self) -> None:
        """All steps that are left.

        Raises:
            StopRequested: if a signal asked for it.
            Exception: whatever a step or an evaluation raises, after the last finished step was saved.
        """
        self._run.stop.defer(self._ranks.max if self._ranks.size > 1 else None)
        try:
            self._take_steps()
        except StopRequested as err:
            if self._saved_step != self._state.step:
                self._warn(f"{err}: saving step {self._state.step}; a second signal exits immediately")
                self._save(is_due=False)
            raise
        except BaseException as err:
            self._rescue(err)
            raise

    def _take_steps(self) -> None:
        self._state = replace(self._state, progress=self._progress())
        if not self._state.is_recorded:
            self._close(())
        while self._state.step < self._run.cadence.total_steps:
            self._run.stop.check()
            step = self._state.step + 1
            set_learning_rate(self._job.optimizer, self._run.schedule.factor(step))
            outcome = self._job.step(step)
            # A plugin names its metrics, and may put anything into a name.
            metrics = redact_keys(outcome.record.metrics)
            record = {"metrics": metrics, "timing_s": dict(outcome.record.timing_s)}
            self._state = TrainState(
                step=step,
                is_recorded=False,
                record=record,
                progress=self._progress(),
                carried=self._job.carried,
            )
            self._optimizer_steps = self._job.optimizer_steps
            self._run.writer.transcribe(step, outcome.groups, outcome.token_figures)
            self._close(outcome.groups, outcome.diagnosis)

    def _progress(self) -> dict[str, object]:
        return {**self._job.progress(), "plans": self._run.schedule.to_json()}

    def _close(self, groups: Sequence[ScoredGroup], diagnosis: str = "") -> None:
        """What follows a step: evaluate, record, save."""
        step, timer = self._state.step, Timer(self._ranks.device)
        if self._state.record is not None:
            self._run.writer.show(StepRecord(step=step, **self._state.record), groups)
        metrics: Mapping[str, float] = {}
        if not diagnosis and self._run.cadence.is_evaluated(step):
            with timer("evaluation_s"), self._run.stop.interruptible():
                metrics = self._evaluate(step)
        if self._state.record is not None:
            self._record(self._state.record, metrics, timer, groups)
        self._state = replace(self._state, is_recorded=True, record=None)
        if diagnosis or self._run.cadence.is_saved(step):
            self._save(is_due=not diagnosis)
        if diagnosis:
            raise TrainingError(diagnosis)

    def _evaluate(self, step: int) -> dict[str, float]:
        """Run every suite; returns ``eval/<suite>/...`` metrics."""
        if not self._evaluator.suites:
            return {}
        self._run.reporter.phase("evaluating")
        results = self._evaluator.evaluate(self._job.policy_version)
        self._run.writer.evaluated(step, results)
        return redact_keys(suite_metrics(results))

    def _record(
        self,
        record: Mapping[str, Mapping[str, float]],
        metrics: Mapping[str, float],
        timer: Timer,
        groups: Sequence[ScoredGroup],
    ) -> None:
        if self._save_s:
            timer.seconds["checkpoint_s"] = self._save_s
            self._save_s = 0.0
        timing = {key: value for key, value in timer.metrics().items() if value > 1e-3}
        whole = StepRecord(
            step=self._state.step, metrics={**record["metrics"], **metrics}, timing_s={**record["timing_s"], **timing}
        )
        self._run.writer.record(whole, groups)

    def _rescue(self, error: BaseException) -> None:
        """Save the last finished step if memory still holds it. Raises nothing: ``error`` is what is to be reported."""
        step, begun = self._state.step, self._job.optimizer_steps - self._optimizer_steps
        if self._saved_step == step or (begun and step == 0):
            return  # nothing to lose
        if self._is_saving and (self._ranks.size > 1 or isinstance(error, CheckpointError)):
            return  # the other ranks do not try again, or the disk is full
        is_shared = self._ranks.shares(error)
        try:
            if not is_shared and needs_all_ranks(self._job.policy):
                self._warn(
                    f"cannot save step {step}: only one process failed, and each holds only a shard of the weights"
                )
            elif is_shared or self._ranks.is_main:
                self._warn(_rescue_text(step, begun))
                free_memory(self._job, error)
                self._state = replace(self._state, unfinished=begun)
                self._save(is_due=False, is_alone=not is_shared)
        except RAISABLE as second:
            log.error("cannot save step %d: %s", step, describe(second))

    def _warn(self, text: str) -> None:
        if self._ranks.is_main:
            log.warning("%s", text)

    def _save(self, *, is_due: bool, is_alone: bool = False) -> None:
        timer = Timer(self._ranks.device)
        self._is_saving = True
        with timer("checkpoint_s"):
            self._run.reporter.phase("saving")
            state = replace(self._state, pending=self._pending(is_alone=is_alone))
            self._run.checkpointer.save(self._job, state, is_due=is_due, is_alone=is_alone)
        self._is_saving = False
        self._saved_step = self._state.step
        self._save_s = timer.seconds["checkpoint_s"]

    def _pending(self, *, is_alone: bool) -> Sequence[ScoredGroup]:
        """The next step's groups that are sampled ahead. A backend that has failed does not keep a step from saving."""
        try:
            return self._job.pending(is_alone=is_alone)
        except RAISABLE as err:
            step = self._state.step
            self._warn(
                f"the prompts of step {step + 1} that were being sampled are lost ({describe(err)}); resume samples "
                f"them with the weights of step {step}, so the results will not be bit-exact"
            )
            return ()


def _rescue_text(step: int, begun: int) -> str:
    if not begun:
        return f"saving step {step}, the last finished step"
    return (
        f"step {step + 1} failed during its update: saving step {step} with {begun} optimizer step"
        f"{'s' if begun > 1 else ''} of step {step + 1} already applied; resume repeats step {step + 1}, so the "
        "results will not be bit-exact; the previous checkpoint is kept"
    )

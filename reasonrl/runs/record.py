"""Write the records of a run: metrics, transcripts, evaluations, summary. Only rank 0 writes."""

import logging
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from reasonrl.contracts.data import RunInfo, ScoredGroup, StepRecord
from reasonrl.errors import CheckpointError, describe
from reasonrl.evaluation.suites import SuiteResult
from reasonrl.observability.reporter import Reporter
from reasonrl.observability.trackers import Trackers
from reasonrl.observability.transcripts import transcript_records
from reasonrl.plugins import Plugins
from reasonrl.redact import redact_data, redact_keys, redact_text, redact_traceback
from reasonrl.rundir import files
from reasonrl.rundir.folder import RunDir
from reasonrl.rundir.jsonl import append_jsonl, write_jsonl
from reasonrl.rundir.layout import (
    EVALS,
    METRICS,
    REPORT,
    SUMMARY,
    TRACEBACK,
    completions_file,
    eval_dir,
    name_step,
    transcript_file,
)
from reasonrl.runs.state import Headline, Records, TrainState
from reasonrl.trainer.evaluator import suite_metrics

log = logging.getLogger(__name__)

REPORT_ROOM = 16 << 20
"""Bytes that must be free for the report, so that it does not take the last space of a full disk."""


class RunWriter:
    """Writes ``metrics.jsonl``, transcripts, evaluations and ``summary.json``. ``last_evaluation``: its figures."""

    def __init__(
        self,
        *,
        run_dir: RunDir | None,
        info: RunInfo,
        reporter: Reporter,
        plugins: Plugins,
        transcripts_per_step: int,
        trackers: Trackers | None = None,
        has_report: bool = False,
    ) -> None:
        self._run_dir = run_dir
        self._info = info
        self._reporter = reporter
        self._plugins = plugins
        self._transcripts_per_step = transcripts_per_step
        self._trackers = trackers
        self._has_report = has_report
        self._started = time.monotonic()
        self._first_evaluation: Headline = {}
        self.last_evaluation: Headline = {}
        self._earlier_s = 0.0
        self._steps_done = 0
        self._metrics_bytes = _size(run_dir.path / METRICS) if run_dir is not None else 0

    def restore(self, state: TrainState) -> None:
        """Continue the records after the checkpoint of ``state``."""
        self._first_evaluation, self.last_evaluation = state.records["first"], state.records["last"]
        self._earlier_s = state.records["wall_s"]
        self._steps_done = state.step

    def check_there(self) -> None:
        """Raise CheckpointError if the run folder was renamed or deleted."""
        if self._run_dir is not None:
            self._run_dir.check_there()

    def transcribe(
        self, step: int, groups: Sequence[ScoredGroup], token_figures: Sequence[Mapping[str, Any] | None] = ()
    ) -> None:
        """The first completions of a step, before anything can interrupt the run."""
        if self._run_dir is None:
            return
        self._run_dir.check_there()
        if self._transcripts_per_step and groups:
            path = transcript_file(self._run_dir.path, step)
            write_jsonl(path, transcript_records(groups, self._transcripts_per_step, token_figures))

    def show(self, record: StepRecord, groups: Sequence[ScoredGroup]) -> None:
        """A step that has been taken, for whoever watches: its evaluation may take minutes."""
        if self._run_dir is not None:
            self._reporter.stepped(record, self._info.total_steps, groups)

    def record(self, record: StepRecord, groups: Sequence[ScoredGroup]) -> None:
        """One finished step with its evaluation."""
        self._steps_done = record.step
        self._plugins.observe("reasonrl_step_finished", run=self._info, record=record, groups=groups)
        if self._run_dir is None:
            return
        self._run_dir.check_there()
        line = {"step": record.step, **record.metrics, **record.timing_s}
        append_jsonl(self._run_dir.path / METRICS, line)
        self._metrics_bytes = _size(self._run_dir.path / METRICS)
        if self._trackers is not None:
            self._trackers.log({**record.metrics, **record.timing_s}, record.step)

    def evaluated(self, step: int, results: Sequence[SuiteResult]) -> None:
        """The suites at ``step``; every completion is kept in ``evals/``."""
        if not results:
            return
        # Figures only: the completions of every evaluation would pile up in memory.
        self.last_evaluation = _headline(step, results)
        self._first_evaluation = self._first_evaluation or self.last_evaluation
        if self._run_dir is None:
            return
        self._run_dir.check_there()
        for result in results:
            path = completions_file(eval_dir(self._run_dir.path, step), result.name)
            write_jsonl(path, transcript_records(result.groups))
        self._run_dir.write_json(f"{EVALS}/{name_step(step)}/{SUMMARY}", {r.name: r.to_json() for r in results})
        if self._trackers is not None:
            for result in results:
                self._trackers.samples(step, result.name, transcript_records(result.groups))
            if step == 0:  # later ones are logged with the step that they follow
                self._trackers.log(redact_keys(suite_metrics(results)), step)
        self._reporter.evaluated(step, results)

    def state(self) -> Records:
        """What a checkpoint keeps of the records: the evaluations' figures, the bytes of metrics.jsonl, the seconds."""
        assert self._run_dir is not None
        metrics = self._run_dir.path / METRICS
        if metrics.is_file():
            files.sync_file(metrics)  # a checkpoint must not be there before the lines it counts
        return {
            "first": self._first_evaluation,
            "last": self.last_evaluation,
            # Not the file's size: a disk that is full may have taken half of a line.
            "metrics_bytes": self._metrics_bytes,
            "wall_s": self._wall_s(),
        }

    def keep_traceback(self, error: BaseException) -> Path | None:
        """Write the traceback of ``error``, without secrets, beside the summary. None: it is only logged."""
        text = redact_traceback(error)
        try:
            if self._run_dir is not None:
                self._run_dir.write_text(TRACEBACK, text)
                return self._run_dir.path / TRACEBACK
        except (OSError, CheckpointError) as err:
            log.error("cannot keep the traceback: %s", err)
        log.error("%s", text)
        return None

    def _wall_s(self) -> float:
        return round(self._earlier_s + time.monotonic() - self._started, 3)

    def finish(
        self,
        outcome: str,
        error: BaseException | None = None,
        *,
        best: Headline | None = None,
        model_path: Path | None = None,
    ) -> dict[str, object]:
        """Write ``summary.json``, tell observers and the reporter, release the folder."""
        summary = {
            "outcome": outcome,
            "steps": self._steps_done,
            "wall_s": self._wall_s(),
            "eval": {"first": self._first_evaluation, "last": self.last_evaluation},
            "best": best,
            "error": format_error(error),
        }
        self._plugins.observe("reasonrl_run_finished", run=self._info, outcome=outcome, error=error)
        if self._trackers is not None:
            self._trackers.close(summary)
        if self._run_dir is not None:
            try:
                self._run_dir.write_json(SUMMARY, summary)
                self._write_report(self._run_dir.path)
                self._reporter.finished(outcome, summary, model_path)
            finally:
                self._run_dir.close()
        return summary

    def _write_report(self, run_dir: Path) -> None:
        """The report of the ended run. Whatever goes wrong is logged: the run itself is complete."""
        if not self._has_report:
            return
        self._reporter.waiting("writing the report")
        try:
            from reasonrl.analysis.report import write_report

            if (free := shutil.disk_usage(run_dir).free) < REPORT_ROOM:
                raise OSError(f"only {free / (1 << 20):.1f} MiB are free on its disk")
            write_report([run_dir], is_over=True, marks=self._plugins.task_marks())
        except Exception as err:  # noqa: BLE001 - a report must not fail a run
            log.warning("cannot write %s: %s; try again with `reasonrl report %s`", REPORT, describe(err), run_dir)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def format_error(error: BaseException | None) -> str | None:
    """An error in one line that may be kept; None without one."""
    if error is None:
        return None
    return redact_text(describe(error))


def _headline(step: int, results: Sequence[SuiteResult]) -> Headline:
    first = results[0]
    return Headline(
        step=step,
        suite=first.name,
        accuracy=first.metrics["accuracy"],
        ci95=[*first.ci95],
        format=first.metrics["format"],
        length_tokens=first.metrics["length_tokens"],
        problems=first.problems,
        suites={result.name: redact_data(result.to_json()) for result in results},
    )

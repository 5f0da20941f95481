"""Everything that a run writes or reports, on rank 0; other ranks keep a logbook that writes nothing."""

import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from reasonrl.checkpoint.models import save_step
from reasonrl.checkpoint.run_dir import RunDir
from reasonrl.contracts.data import RunInfo, ScoredGroup, StepRecord
from reasonrl.evaluation.suites import SuiteResult
from reasonrl.observability.jsonl import append_jsonl, write_jsonl
from reasonrl.observability.reporter import Phase, Reporter
from reasonrl.observability.trackers import Trackers
from reasonrl.observability.transcripts import transcript_records

log = logging.getLogger(__name__)


class Logbook:
    """``metrics.jsonl``, transcripts, evaluations, saved models and ``summary.json`` of one run."""

    def __init__(
        self,
        *,
        run_dir: RunDir | None,
        info: RunInfo,
        reporter: Reporter,
        plugins: Any,
        total_steps: int,
        transcripts_per_step: int,
        trackers: Trackers | None = None,
    ) -> None:
        self._run_dir = run_dir
        self._info = info
        self._reporter = reporter
        self._plugins = plugins
        self._total_steps = total_steps
        self._transcripts_per_step = transcripts_per_step
        self._trackers = trackers
        self._started = time.monotonic()
        self._first_evaluation: dict[str, Any] = {}
        self._last_evaluation: dict[str, Any] = {}
        self._steps_done = 0
        self.model_path: Path | None = None

    def phase(self, phase: Phase) -> None:
        """What begins now, for whoever watches."""
        if self._run_dir is not None:
            self._reporter.phase(phase)

    def record(self, record: StepRecord, groups: Sequence[ScoredGroup]) -> None:
        """One finished step."""
        self._steps_done = record.step
        self._plugins.observe("reasonrl_step_finished", run=self._info, record=record, groups=groups)
        if self._run_dir is None:
            return
        line = {"step": record.step, **record.metrics, **record.timing_s}
        append_jsonl(self._run_dir.path / "metrics.jsonl", line)
        if self._transcripts_per_step and groups:
            path = self._run_dir.path / "transcripts" / f"step_{record.step:06d}.jsonl"
            write_jsonl(path, transcript_records(groups, self._transcripts_per_step))
        if self._trackers is not None:
            self._trackers.log({**record.metrics, **record.timing_s}, record.step)
        self._reporter.stepped(record, self._total_steps, groups)

    def evaluated(self, step: int, results: Sequence[SuiteResult]) -> None:
        """The suites at ``step``; every completion is kept in ``evals/``."""
        if not results:
            return
        # Figures only: the completions of every evaluation would pile up in memory.
        self._last_evaluation = _headline(step, results)
        self._first_evaluation = self._first_evaluation or self._last_evaluation
        if self._run_dir is None:
            return
        for result in results:
            path = self._run_dir.path / "evals" / f"step_{step:06d}" / f"{result.name}.jsonl"
            write_jsonl(path, transcript_records(result.groups))
        self._run_dir.write_json(
            f"evals/step_{step:06d}/summary.json", {r.name: r.to_json() for r in results}
        )
        self._reporter.evaluated(step, results)

    def save_model(self, step: int, write: Callable[[Path], None], *, keep: int) -> None:
        """``checkpoints/step_<n>/`` as a Hugging Face model folder."""
        if self._run_dir is not None:
            self.model_path = save_step(self._run_dir.path, step, write, keep=keep)

    def finish(self, outcome: str, error: BaseException | None = None) -> dict[str, Any]:
        """Write ``summary.json``, tell observers and the reporter, release the folder."""
        summary = {
            "outcome": outcome,
            "steps": self._steps_done,
            "wall_s": round(time.monotonic() - self._started, 3),
            "eval": {"first": self._first_evaluation, "last": self._last_evaluation},
        }
        self._plugins.observe("reasonrl_run_finished", run=self._info, outcome=outcome, error=error)
        if self._trackers is not None:
            self._trackers.close()
        if self._run_dir is not None:
            try:
                self._run_dir.write_json("summary.json", summary)
                self._reporter.finished(outcome, summary, self.model_path)
            finally:
                self._run_dir.close()
        return summary


def _headline(step: int, results: Sequence[SuiteResult]) -> dict[str, Any]:
    """The first suite's figures, with all suites below ``suites``."""
    first = results[0].to_json()
    return {
        "step": step,
        "suite": results[0].name,
        **{key: first[key] for key in ("accuracy", "ci95", "format", "length_tokens", "problems")},
        "suites": {result.name: result.to_json() for result in results},
    }

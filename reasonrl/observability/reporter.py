"""The interface between a run and its display. The command line prints; the library is silent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:  # the first line of a run is shown before anything heavy is loaded
    from pathlib import Path

    from reasonrl.contracts.data import ScoredGroup, StepRecord
    from reasonrl.evaluation.suites import SuiteResult

Phase = Literal["sampling", "updating", "evaluating", "saving"]
Lines = Sequence[tuple[str, str]]
"""(label, text) lines."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Outline:
    """The header of a run, known before the model is loaded."""

    title: str
    lines: Lines = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Past:
    """The past of a resumed run: last step, metrics so far, first and last evaluation as in ``summary.json``."""

    step: int
    metrics: Sequence[Mapping[str, Any]] = ()
    first: Mapping[str, Any] = field(default_factory=dict)
    last: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """The plan of a run, known once the model is loaded.

    ``evaluation_every`` is the recipe's; the last step is always evaluated.
    """

    title: str
    total_steps: int
    lines: Lines
    evaluation_every: int = 0
    past: Past | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationProgress:
    """Progress of an evaluation: the current suite, and problems over all suites."""

    suite: str
    done: int
    total: int


class Reporter:
    """Receives the events of a run, on rank 0 only. The base class reports nothing."""

    def starting(self, outline: Outline) -> None: ...
    def waiting(self, what: str) -> None:
        """A slow operation begins, such as ``loading model countdown-base``; it ends with the next call."""

    def progress(self, what: str) -> None:
        """How far the slow operation is, such as ``downloading x: 120 MB``; called often, for terminals only."""

    def planned(self, plan: Plan) -> None: ...
    def phase(self, phase: Phase) -> None: ...
    def stepped(self, record: StepRecord, total_steps: int, groups: Sequence[ScoredGroup]) -> None: ...
    def evaluating(self, progress: EvaluationProgress) -> None:
        """Evaluation progress; called often from inside the backend, so it must be cheap."""

    def evaluated(self, step: int, results: Sequence[SuiteResult]) -> None: ...
    def finished(self, outcome: str, summary: Mapping[str, object], model_path: Path | None) -> None: ...


class SilentReporter(Reporter):
    """Reports nothing; the default of ``reasonrl.run()``."""

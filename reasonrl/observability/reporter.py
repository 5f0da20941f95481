"""How a run talks to whoever watches. The command line prints; the library stays silent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:  # the first line of a run is shown before anything heavy is loaded
    from pathlib import Path

    from reasonrl.contracts.data import ScoredGroup, StepRecord
    from reasonrl.evaluation.suites import SuiteResult

Phase = Literal["sampling", "updating", "evaluating", "saving"]
Lines = Sequence[tuple[str, str]]
"""(label, text), one below the other."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Outline:
    """What the recipe alone says about a run; known before the model is loaded."""

    title: str
    lines: Lines = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Past:
    """Where a resumed run stands: its last step, the lines of ``metrics.jsonl`` up to there, its first and last
    evaluation as in ``summary.json``."""

    step: int
    metrics: Sequence[Mapping[str, Any]] = ()
    first: Mapping[str, Any] = field(default_factory=dict)
    last: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What is known once the model is loaded, said before the first step.

    ``evaluation_every`` is that of the recipe; the last step is evaluated anyway.
    """

    title: str
    total_steps: int
    lines: Lines
    evaluation_every: int = 0
    past: Past | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationProgress:
    """How far an evaluation is: the suite that is being sampled, and problems over all suites."""

    suite: str
    done: int
    total: int


class Reporter(Protocol):
    """Told of everything worth showing; rank 0 only."""

    def starting(self, outline: Outline) -> None: ...
    def waiting(self, what: str) -> None:
        """Something slow begins, such as ``loading model countdown-base``; ends with the next call."""

    def planned(self, plan: Plan) -> None: ...
    def phase(self, phase: Phase) -> None: ...
    def stepped(self, record: StepRecord, total_steps: int, groups: Sequence[ScoredGroup]) -> None: ...
    def evaluating(self, progress: EvaluationProgress) -> None:
        """Comes often, from inside the backend: it must cost next to nothing."""

    def evaluated(self, step: int, results: Sequence[SuiteResult]) -> None: ...
    def finished(self, outcome: str, summary: Mapping[str, object], model_path: Path | None) -> None: ...


class SilentReporter:
    """The default of ``reasonrl.run()``: everything is in the run folder anyway."""

    def starting(self, outline: Outline) -> None:
        return None

    def waiting(self, what: str) -> None:
        return None

    def planned(self, plan: Plan) -> None:
        return None

    def phase(self, phase: Phase) -> None:
        return None

    def stepped(self, record: StepRecord, total_steps: int, groups: Sequence[ScoredGroup]) -> None:
        return None

    def evaluating(self, progress: EvaluationProgress) -> None:
        return None

    def evaluated(self, step: int, results: Sequence[SuiteResult]) -> None:
        return None

    def finished(self, outcome: str, summary: Mapping[str, object], model_path: Path | None) -> None:
        return None

"""How a run talks to whoever watches. The command line prints; the library stays silent."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from reasonrl.contracts.data import ScoredGroup, StepRecord
from reasonrl.evaluation.suites import SuiteResult

Phase = Literal["sampling", "updating", "evaluating", "saving"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What will happen, said before it happens: (label, text) lines.

    ``evaluation_every`` is that of the recipe; the last step is evaluated anyway.
    """

    title: str
    total_steps: int
    lines: Sequence[tuple[str, str]]
    evaluation_every: int = 0


class Reporter(Protocol):
    """Told of everything worth showing; rank 0 only."""

    def planned(self, plan: Plan) -> None: ...
    def phase(self, phase: Phase) -> None: ...
    def stepped(self, record: StepRecord, total_steps: int, groups: Sequence[ScoredGroup]) -> None: ...
    def evaluated(self, step: int, results: Sequence[SuiteResult]) -> None: ...
    def finished(self, outcome: str, summary: Mapping[str, object], model_path: Path | None) -> None: ...


class SilentReporter:
    """The default of ``reasonrl.run()``: everything is in the run folder anyway."""

    def planned(self, plan: Plan) -> None:
        return None

    def phase(self, phase: Phase) -> None:
        return None

    def stepped(self, record: StepRecord, total_steps: int, groups: Sequence[ScoredGroup]) -> None:
        return None

    def evaluated(self, step: int, results: Sequence[SuiteResult]) -> None:
        return None

    def finished(self, outcome: str, summary: Mapping[str, object], model_path: Path | None) -> None:
        return None

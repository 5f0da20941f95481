"""How a run talks to whoever watches. The command line prints; the library stays silent."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from reasonrl.contracts.data import ScoredGroup, StepRecord
from reasonrl.evaluation.suites import SuiteResult


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What will happen, said before it happens: (label, text) lines."""

    title: str
    total_steps: int
    lines: Sequence[tuple[str, str]]


class Reporter(Protocol):
    """Told of everything worth showing; rank 0 only."""

    def planned(self, plan: Plan) -> None: ...
    def stepped(self, record: StepRecord, total_steps: int, groups: Sequence[ScoredGroup]) -> None: ...
    def evaluated(self, step: int, results: Sequence[SuiteResult]) -> None: ...
    def finished(self, outcome: str, summary: Mapping[str, object], model_path: Path | None) -> None: ...


class SilentReporter:
    """The default of ``reasonrl.run()``: everything is in the run folder anyway."""

    def planned(self, plan: Plan) -> None:
        return None

    def stepped(self, record: StepRecord, total_steps: int, groups: Sequence[ScoredGroup]) -> None:
        return None

    def evaluated(self, step: int, results: Sequence[SuiteResult]) -> None:
        return None

    def finished(self, outcome: str, summary: Mapping[str, object], model_path: Path | None) -> None:
        return None

"""Findings, checks and the diagnosis that they add up to."""

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Literal

from reasonrl.analysis.doctor.records import RunRecords

Severity = Literal["ok", "note", "warning", "error"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note", "ok")
"""Worst first. ``error``: data is lost, or the model does not learn. ``note``: no action needed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One observation. ``step``: the step at which it began, if it has one."""

    severity: Severity
    check: str
    message: str
    remedy: str = ""
    step: int | None = None

    def to_json(self) -> dict[str, object]:
        return asdict(self)


@dataclass(frozen=True, kw_only=True, slots=True)
class Check:
    """One check. ``needs``: metric keys, at least one of which the run must have; () = none needed."""

    name: str
    looks_at: str
    find: Callable[[RunRecords], Iterable[Finding]]
    needs: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Diagnosis:
    """All findings, worst first; the checks that passed; the checks whose metrics the run does not have."""

    subject: str
    state: str
    findings: tuple[Finding, ...]
    passed: tuple[str, ...] = ()
    not_measured: tuple[str, ...] = ()

    @property
    def has_errors(self) -> bool:
        return any(finding.severity == "error" for finding in self.findings)

    def to_json(self) -> dict[str, object]:
        """Return the output of ``reasonrl doctor --json``."""
        return {
            "subject": self.subject,
            "state": self.state,
            "findings": [finding.to_json() for finding in self.findings],
            "passed": list(self.passed),
            "not_measured": list(self.not_measured),
        }


def worst_first(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Sort findings by severity, keeping the order within one severity."""
    return tuple(sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity)))

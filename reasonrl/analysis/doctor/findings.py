"""What an examination says."""

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal

from reasonrl.analysis.doctor.records import RunRecords

Severity = Literal["ok", "note", "warning", "error"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note", "ok")
"""Worst first. ``error``: something is lost, or nothing is learned. ``note``: worth knowing, nothing to repair."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One observation with its figure. ``step``: where it began, if it began somewhere."""

    severity: Severity
    check: str
    message: str
    remedy: str = ""
    step: int | None = None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, kw_only=True, slots=True)
class Check:
    """One thing that is looked at. ``needs``: metric keys of which one must have been measured; () = always."""

    name: str
    looks_at: str
    find: Callable[[RunRecords], Iterable[Finding]]
    needs: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Diagnosis:
    """All findings, worst first; the checks that found nothing; those whose metrics this run does not have."""

    subject: str
    state: str
    findings: tuple[Finding, ...]
    fine: tuple[str, ...] = ()
    not_measured: tuple[str, ...] = ()

    @property
    def has_errors(self) -> bool:
        return any(finding.severity == "error" for finding in self.findings)

    def to_json(self) -> dict[str, Any]:
        """The JSON form of ``reasonrl doctor --json``."""
        return {
            "subject": self.subject,
            "state": self.state,
            "findings": [finding.to_json() for finding in self.findings],
            "fine": list(self.fine),
            "not_measured": list(self.not_measured),
        }


def worst_first(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Findings by severity; those of one severity stay in their order."""
    return tuple(sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity)))

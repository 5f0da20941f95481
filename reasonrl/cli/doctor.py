"""``reasonrl doctor``: diagnose a run or this installation."""

from collections.abc import Sequence
from dataclasses import replace

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from reasonrl.analysis.doctor import Diagnosis, Finding, examine
from reasonrl.analysis.doctor.findings import SEVERITIES
from reasonrl.cli.streams import print_json
from reasonrl.cli.table import table, wrap
from reasonrl.cli.waiting import open_spinner
from reasonrl.errors import RecipeError
from reasonrl.redact import redact_text
from reasonrl.text import sanitize

STYLES = {"error": "bold red", "warning": "yellow", "note": "cyan", "ok": "green"}


def run_doctor(run_dir: str | None, of_installation: bool, as_json: bool) -> None:
    """Diagnose a run folder or the installation and print the findings.

    Raises:
        RecipeError: If the input is wrong.
        typer.Exit: With status 1 if a finding is an error.
    """
    if of_installation == (run_dir is not None):
        raise RecipeError("expected either a run or --self: `reasonrl doctor RUN` or `reasonrl doctor --self`")
    with open_spinner(f"examining {run_dir or 'this installation'}"):
        diagnosis = _redact(_diagnose(run_dir))
    if as_json:
        print_json(diagnosis.to_json())
    else:
        show(diagnosis, Console(highlight=False))
    if diagnosis.has_errors:
        raise typer.Exit(1)


def _diagnose(run_dir: str | None) -> Diagnosis:
    if run_dir is not None:
        return examine(run_dir)
    from reasonrl.cli.installation import examine_installation

    return examine_installation()


def _redact(diagnosis: Diagnosis) -> Diagnosis:
    """Redact messages: an error of a plugin or a run may quote a secret."""
    shown = tuple(replace(finding, message=redact_text(finding.message)) for finding in diagnosis.findings)
    return replace(diagnosis, findings=shown)


def show(diagnosis: Diagnosis, console: Console) -> None:
    """Print a headline, a table of findings, and the checks that passed; fits 80 columns."""
    console.print(Text(sanitize(f"{diagnosis.subject}: {diagnosis.state}"), style="bold"), soft_wrap=True)
    console.print(_count(diagnosis.findings))
    if diagnosis.findings:
        console.print()
        _print_findings(diagnosis.findings, console)
    console.print()
    for label, names in (("passed", diagnosis.passed), ("not measured", diagnosis.not_measured)):
        if names:
            console.print(Text(wrap(f"{label}: {', '.join(names)}", width=min(console.width, 80)), style="dim"))


def _count(findings: Sequence[Finding]) -> str:
    counts = {severity: sum(f.severity == severity for f in findings) for severity in SEVERITIES}
    parts = [f"{n} {name}{'s' if n > 1 else ''}" for name, n in counts.items() if n and name != "ok"]
    return ", ".join(parts) or "no problems found"


def _print_findings(findings: Sequence[Finding], console: Console) -> None:
    if console.is_terminal:
        console.print(_table(findings))
        return
    rows = [
        row
        for finding in findings
        for row in (
            (finding.severity, finding.check, sanitize(_message(finding))),
            *([("", "", sanitize(f"-> {finding.remedy}"))] if finding.remedy else []),
        )
    ]
    for line in table(("SEVERITY", "CHECK", "FINDING"), rows):
        typer.echo(line)


def _message(finding: Finding) -> str:
    return finding.message + ("" if finding.step is None else f" [step {finding.step}]")


def _table(findings: Sequence[Finding]) -> Table:
    grid = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    grid.add_column(no_wrap=True)
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for finding in findings:
        text = Text(sanitize(_message(finding)))
        if finding.remedy:
            text.append(sanitize(f"\n-> {finding.remedy}"), style="dim")
        grid.add_row(Text(finding.severity, style=STYLES[finding.severity]), finding.check, text)
    return grid

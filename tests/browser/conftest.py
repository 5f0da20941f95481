"""A skipped browser test is not a passed one: the summary says why none ran."""

from __future__ import annotations

from typing import Any


def pytest_terminal_summary(terminalreporter: Any) -> None:
    skipped = [report for report in terminalreporter.stats.get("skipped", []) if "tests/browser" in report.nodeid]
    if skipped:
        terminalreporter.section("browser tests did NOT run", red=True, bold=True)
        terminalreporter.line(f"{len(skipped)} skipped: {skipped[0].longrepr[-1]}", red=True)

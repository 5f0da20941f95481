"""Put a report together."""

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from reasonrl.analysis.doctor.findings import SEVERITIES, Finding
from reasonrl.analysis.report import charts, tables
from reasonrl.analysis.report.clean import clean
from reasonrl.analysis.report.figures import RunFigures, read_figures
from reasonrl.analysis.report.samples import Samples, collect
from reasonrl.analysis.report.svg import draw, points_of
from reasonrl.contracts.specs import Marks
from reasonrl.rundir.files import write_atomic
from reasonrl.rundir.layout import REPORT
from reasonrl.rundir.reading import open_regular
from reasonrl.version import __version__

MARK = '<!doctype html><html lang="en" data-made-by="reasonrl report">'
"""How every report begins: no other file is overwritten."""
REFRESH_S = 10


def write_report(
    run_dirs: Sequence[Path],
    output: Path | None = None,
    *,
    samples: int | None = None,
    refresh: bool = False,
    is_over: bool = False,
    marks: Mapping[str, Marks] | None = None,
) -> Path:
    """Write the report of some runs and return its path, by default in the folder of a single run.

    Args:
        samples: completions to include, however large the file; None = as many as keep it under 5 MB.
        refresh: the page reloads itself while a run is going on.
        is_over: the caller holds the lock of a run that has ended.
        marks: what highlights the completions of a task, by its name.

    Raises:
        RecipeError: If one of them is not a run folder.
        OSError: If the file cannot be written.
    """
    path = output or (run_dirs[0] / REPORT if len(run_dirs) == 1 else Path(REPORT))
    text = build_page(run_dirs, samples=samples, refresh=refresh, is_over=is_over, marks=marks)
    write_atomic(path, text)
    return path


def build_page(
    run_dirs: Sequence[Path],
    *,
    samples: int | None = None,
    refresh: bool = False,
    is_over: bool = False,
    marks: Mapping[str, Marks] | None = None,
) -> str:
    """Return the page as text; see ``write_report``."""
    runs = [read_figures(path, is_over=is_over) for path in run_dirs]
    known = marks or {}
    found = collect(run_dirs, samples, lambda run, source: known.get(runs[run].task_of(source)))
    is_going_on = any(run.state == "running" for run in runs)
    return (
        _environment()
        .get_template("report.html")
        .render(
            mark=Markup(MARK),
            title=", ".join(run.label for run in runs[:3]) + (f" and {len(runs) - 3} more" if len(runs) > 3 else ""),
            version=__version__,
            script_hash=script_hash(),
            refresh=REFRESH_S if refresh and is_going_on else 0,
            **_sections(runs, found),
        )
    )


def is_report(path: Path) -> bool:
    """Whether a file was written by ``write_report``."""
    try:
        with open_regular(path) as file:
            return file.read(len(MARK)) == MARK.encode()
    except (OSError, ValueError):
        return False


def _sections(runs: Sequence[RunFigures], found: Samples) -> dict[str, Any]:
    groups = charts.group_runs(runs)
    findings = [(run, finding) for run in runs for finding in run.diagnosis.findings]
    findings.sort(key=lambda pair: SEVERITIES.index(pair[1].severity))
    return {
        "runs": runs,
        "groups": groups,
        "main": charts.main_charts(groups),
        "more": charts.more_charts(groups),
        "components": charts.component_charts(groups),
        "behaviors": charts.behavior_charts(groups),
        "differences": _differences(runs),
        "findings": findings,
        "has_errors": any(_is_bad(finding) for _, finding in findings),
        "samples": found,
    }


def _differences(runs: Sequence[RunFigures]) -> dict[str, list[str]]:
    return charts.different_settings(runs) if len(runs) > 1 else {}


def _is_bad(finding: Finding) -> bool:
    return finding.severity in ("error", "warning")


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("reasonrl.analysis.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_finalize,
    )
    environment.filters["with_code"] = with_code
    environment.globals |= {
        "draw": draw,
        "points_of": points_of,
        "facts_of": tables.facts_of,
        "batch_lines": tables.batch_lines,
        "changes_of": tables.changes_of,
        "stages_of": tables.stages_of,
        "component_weights": tables.component_weights,
        "style": Markup(asset("style.css")),
        "script": Markup(asset("page.js")),
    }
    return environment


def with_code(text: str) -> Markup:
    """The doctor's text, with what is between backticks as code."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(clean(text)))))


def _finalize(value: Any) -> Any:
    """Clean every text that a template prints, before it is escaped."""
    return value if isinstance(value, Markup) else clean(str(value))


@cache
def asset(name: str) -> str:
    """Return the text of a file in ``templates``."""
    return resources.files("reasonrl.analysis.report").joinpath("templates", name).read_text(encoding="utf-8")


def script_hash() -> str:
    """Return the hash by which the page's own script, and no other, may run."""
    digest = hashlib.sha256(asset("page.js").encode("utf-8")).digest()
    return "sha256-" + base64.b64encode(digest).decode("ascii")

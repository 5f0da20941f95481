"""Pictures of a report for the documentation: its curves and its samples.

python scripts/report_picture.py RUN [RUN ...] [--search TEXT]

Needs Chromium and `pip install -e ".[browser]"`. Writes docs/assets/report.png and docs/assets/report-samples.png.
"""

import argparse
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ASSETS = ROOT / "docs" / "assets"
sys.path += [str(ROOT / "tests")]


def main() -> None:
    """Write a report, open it, take the pictures."""
    from support.browser import visit

    from reasonrl.analysis.report import write_report
    from reasonrl.plugins import load_plugins

    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("runs", type=Path, nargs="+")
    options.add_argument("--search", default="aim")
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        file = write_report(chosen.runs, Path(folder) / "report.html", marks=load_plugins().task_marks())
        with visit(file, viewport={"width": 1100, "height": 620}) as seen:
            seen.page.wait_for_selector("#rows button")
            seen.page.locator("#curves").evaluate("e => e.scrollIntoView()")
            seen.page.screenshot(path=ASSETS / "report.png")
            seen.page.fill("[name=q]", chosen.search)
            seen.page.evaluate("document.activeElement.blur()")
            seen.page.locator("#samples").evaluate("e => e.scrollIntoView()")
            seen.page.screenshot(path=ASSETS / "report-samples.png")


if __name__ == "__main__":
    main()

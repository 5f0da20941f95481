"""The live view of a finished run at one of its steps, as an SVG picture for the documentation.

python scripts/live_picture.py RUN [--step N] [--output docs/assets/live.svg] [--width 80] [--height 23]

Figures, evaluations, times and the sample are read from the run folder. The run needs
``logging.transcripts_per_step`` of at least 1. The loading time before the first step is not in a run folder and is
left out.
"""

import argparse
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.terminal_theme import DEFAULT_TERMINAL_THEME

from reasonrl.cli.live_pace import Pace
from reasonrl.cli.live_view import LiveView

OUTPUT = Path(__file__).resolve().parents[1] / "docs" / "assets" / "live.svg"


def main() -> None:
    """Read a run folder, write a picture. The run may still be going on."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("run", type=Path)
    options.add_argument("--step", type=int, help="default: two thirds of the run")
    options.add_argument("--output", type=Path, default=OUTPUT)
    options.add_argument("--width", type=int, default=80)
    options.add_argument("--height", type=int, default=23)
    chosen = options.parse_args()
    records = [json.loads(line) for line in (chosen.run / "metrics.jsonl").read_text("utf-8").splitlines()]
    view, now = watch(chosen.run, records, chosen.step or max(1, len(records) * 2 // 3))
    console = Console(record=True, width=chosen.width, file=io.StringIO(), force_terminal=True)
    for line in view.lines(chosen.width, chosen.height, now):
        console.print(line)
    svg = console.export_svg(title="reasonrl train", theme=DEFAULT_TERMINAL_THEME, unique_id="live")
    chosen.output.write_text(offline(svg), encoding="utf-8")


def watch(run: Path, records: list[dict[str, Any]], until: int) -> tuple[LiveView, float]:
    """The view as it was in the middle of sampling step ``until + 1``, and the time then."""
    manifest = json.loads((run / "run.json").read_text("utf-8"))
    recipe = manifest["recipe"]
    total = recipe["trainer"]["steps"] if "trainer" in recipe else len(records)
    pace = Pace(total, recipe["evaluation"]["every"], 0.0)
    view = LiveView(f"reasonrl {manifest['reasonrl']}: {manifest['name']}", pace)
    now = 0.0
    evaluation_s = [r["time/evaluation_s"] for r in records if "time/evaluation_s" in r]
    now = evaluate(view, run, 0, now, evaluation_s[0] if evaluation_s else 0.0)
    for record in records[:until]:
        now += record["time/step_s"]
        view.stepped(record["step"], record, sample(run, record["step"]), now)
        now = evaluate(view, run, record["step"], now, record.get("time/evaluation_s", 0.0))
    view.begin("sampling", now)
    return view, now + 1.0


def evaluate(view: LiveView, run: Path, step: int, now: float, seconds: float) -> float:
    """Show the evaluation at ``step``, if there was one; returns the time after it."""
    path = run / "evals" / f"step_{step:06d}" / "summary.json"
    if not path.is_file():
        return now
    view.begin("evaluating", now)
    view.evaluated(step, json.loads(path.read_text("utf-8")), now + seconds)
    return now + seconds


def sample(run: Path, step: int) -> Mapping[str, Any] | None:
    """One of the transcripts of a step, a different one each time."""
    path = run / "transcripts" / f"step_{step:06d}.jsonl"
    lines = path.read_text("utf-8").splitlines() if path.is_file() else []
    return json.loads(lines[step % len(lines)]) if lines else None


def offline(svg: str) -> str:
    """Without the web fonts that rich refers to: no page of ours fetches anything from another host."""
    head, _, rest = svg.partition("<style>")
    style, _, body = rest.partition("</style>")
    faces = style.split("@font-face")
    # Only the style is rewritten; the comment that names its maker stays.
    kept = "".join(part.partition("}")[2] for part in faces[1:])
    return f"{head}<style>{faces[0]}{kept}</style>{body}".replace("Fira Code, monospace", "monospace")


if __name__ == "__main__":
    main()

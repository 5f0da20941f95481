"""How much of the shorter side `trainer.max_staleness: 1` hides: sampling during the update.

    python benchmarks/overlap.py [--steps 8] [--latency 0.5 1.0 2.0]

Trains `countdown_grpo` with an engine that waits for a multiple of the time that the rest of a step takes and computes
nothing. Each latency runs twice: sample, then update; and sampling during the update. A step that hides everything is
as long as the slower of the two sides; the hidden share is what was saved of that. Exits with 1 if it is under 90%.
"""

import argparse
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from measure import record, show, table

from reasonrl.runs.start import train

ENGINE = Path(__file__).with_name("latency_engine.py")
LEAST = 0.9
OPTIONS = (
    "evaluation.suites=null",
    "checkpoint.every=0",
    "logging.report=false",
    "logging.transcripts_per_step=0",
    "logging.token_figures_per_step=0",
    "trainer.prompts_per_step=16",
    "algorithm.entropy_coef=0.001",  # else random completions, which all score 0, are not trained on
    "rollout_backend.name=latency",
    "seed=0",
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, choices=range(4, 1001), metavar="STEPS", default=8, help="4 to 1000")
    parser.add_argument("--latency", type=float, nargs="+", default=[0.5, 1.0, 2.0], help="multiples of the rest")
    arguments = parser.parse_args()
    rest = median(rests(steps_of(0.0, 0, arguments.steps)))
    rows, hidden = [], []
    for multiple in arguments.latency:
        row = measure(multiple * rest, arguments.steps)
        hidden.append(row["hidden"])
        rows.append([f"{row[key]:.2f} s" for key in ("latency", "rest", "after", "during", "ideal")])
        rows[-1].append(f"{row['hidden']:.0%}")
        record("overlap", steps=arguments.steps, **row)
    header = ("sampling", "rest of a step", "sample, then update", "sample during the update", "ideal", "hidden")
    show(table(header, rows))
    return int(min(hidden) < LEAST)


def measure(latency: float, steps: int) -> dict[str, float]:
    """Median seconds of a step in both ways; the first two and the last one, which samples nothing, do not count."""
    after, during = (steps_of(latency, staleness, steps) for staleness in (0, 1))
    rest = median(rests(after))
    whole = [median(step["time/step_s"] for step in run[2:-1]) for run in (after, during)]
    ideal = max(latency, rest)
    hidden = (whole[0] - whole[1]) / (whole[0] - ideal)
    return {
        "latency": latency, "rest": rest, "after": whole[0], "during": whole[1], "ideal": ideal, "hidden": hidden
    }  # fmt: skip


def rests(run: Sequence[dict[str, float]]) -> list[float]:
    """Seconds of each step without sampling."""
    return [step["time/step_s"] - step["time/rollout_s"] for step in run[2:-1]]


def steps_of(latency: float, staleness: int, steps: int) -> list[dict[str, float]]:
    """Metrics of every step of a run."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        options = [*OPTIONS, f"trainer.steps={steps}", f"trainer.max_staleness={staleness}"]
        options.append(f"rollout_backend.latency_s={latency}")
        train("countdown_grpo", options, run_dir=run, plugin_files=[str(ENGINE)])
        return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


if __name__ == "__main__":
    raise SystemExit(main())

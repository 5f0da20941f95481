"""What is learned on Countdown with a calculator, and in its control, where the model writes the results itself.

    python benchmarks/conversations.py [--seeds 0 1 2] [--out DIR]

Makes the base model by SFT, trains both arms from it over the seeds, and writes ``results.jsonl``, a line a run,
and ``table.md``: the held-out problems solved before and after, with Wilson 95% intervals. Everything that has finished
is kept in ``--out`` and not done again.
"""

import argparse
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from learning import finished
from learning_report import markdown

import reasonrl
from reasonrl.runs.start import sft
from reasonrl.statistics.proportions import wilson_interval

ROOT = Path(__file__).resolve().parents[1]
RECIPES = ROOT / "recipes" / "conversations"
SUITE = "held_out"


@dataclass(frozen=True, slots=True)
class Arm:
    """Runs of the recipe with ``overrides``."""

    name: str
    overrides: tuple[str, ...] = ()


ARMS = (
    Arm("calculator"),
    Arm("no calculator", ("task.calculator=head", "sampling.stop=[]")),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "conversations")
    arguments = parser.parse_args()
    lines = [train(arm, seed, arguments.out) for seed in arguments.seeds for arm in ARMS]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (arguments.out / "results.jsonl").write_text(text, encoding="utf-8")
    report = table(lines)
    (arguments.out / "table.md").write_text(report, encoding="utf-8")
    print(text + "\n" + report)  # noqa: T201 - a script's output


def train(arm: Arm, seed: int, out: Path) -> dict[str, Any]:
    """Run one arm with one seed if that is not done yet; return its figures."""
    base = out / "base-calculator"
    if not finished(base):
        sft(RECIPES / "countdown_calculator_sft.yaml", run_dir=base)
    folder = out / f"{arm.name.replace(' ', '-')}-seed{seed}"
    if not finished(folder):
        model = max((base / "checkpoints").glob("step_*"))
        overrides = (f"model={{path: {model.resolve()}}}", *arm.overrides, f"seed={seed}")
        reasonrl.run(RECIPES / "countdown_calculator_grpo.yaml", overrides, run_dir=folder)
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    before, after = (figures(summary["eval"][when]["suites"][SUITE]) for when in ("first", "last"))
    seconds = round(summary["wall_s"])
    return {"arm": arm.name, "seed": seed, "before": before, "after": after, "seconds": seconds}


def figures(suite: dict[str, Any]) -> dict[str, int]:
    return {"solved": round(suite["accuracy"] * suite["problems"]), "problems": suite["problems"]}


def table(lines: Sequence[dict[str, Any]]) -> str:
    """A row a run, a row for all seeds of an arm, and the margin over the control."""
    rows = []
    arms = [[line for line in lines if line["arm"] == arm.name] for arm in ARMS]
    for arm, runs in zip(ARMS, arms, strict=True):
        rows += [row(f"{arm.name}, seed {run['seed']}", [run]) for run in runs]
        rows.append(row(f"{arm.name}, all seeds", runs))
    return markdown(("", "before", "after", "seconds"), rows) + "\n" + margin(*arms)


def row(label: str, runs: Sequence[dict[str, Any]]) -> list[str]:
    seconds = sum(run["seconds"] for run in runs) / len(runs)
    return [label, share([r["before"] for r in runs]), share([r["after"] for r in runs]), f"{seconds:.0f}"]


def share(results: Sequence[dict[str, int]]) -> str:
    solved, problems = pooled(results)
    low, high = wilson_interval(solved, problems)
    return f"{solved / problems:.1%} ({100 * low:.1f} to {100 * high:.1f})"


def pooled(results: Sequence[dict[str, int]]) -> tuple[int, int]:
    return sum(r["solved"] for r in results), sum(r["problems"] for r in results)


def margin(runs: Sequence[dict[str, Any]], control: Sequence[dict[str, Any]]) -> str:
    """The difference to the control after training, with the normal 95% interval of two independent shares."""
    (a, n), (b, m) = pooled([r["after"] for r in runs]), pooled([r["after"] for r in control])
    p, q = a / n, b / m
    half = 1.96 * math.sqrt(p * (1 - p) / n + q * (1 - q) / m)
    low, high = 100 * (p - q - half), 100 * (p - q + half)
    verdict = "beats its control" if low > 0 else "does NOT beat its control beyond the interval"
    return f"{100 * (p - q):+.1f} points ({low:+.1f} to {high:+.1f}); {verdict}.\n"


if __name__ == "__main__":
    main()

"""What is learned in conversations, and in their controls: Countdown with a calculator, and a guessing game with hints.

    python benchmarks/conversations.py [calculator] [guess_number] [--seeds 0 1 2] [--out DIR]

Makes the base models by SFT, trains both arms of each trial from them over the seeds, and writes ``results.jsonl``, a
line a run, and ``table.md``: the held-out problems solved before and after, with Wilson 95% intervals. Everything that
has finished is kept in ``--out`` and not done again.
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
    """Runs of a trial's recipes; ``sft`` and ``grpo`` are the overrides of each."""

    name: str
    sft: tuple[str, ...] = ()
    grpo: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Trial:
    """An arm and its control: a base by SFT, and GRPO from there. Arms whose ``sft`` is the same share a base."""

    name: str
    recipe: str
    arm: Arm
    control: Arm

    @property
    def arms(self) -> tuple[Arm, Arm]:
        """The arm and its control."""
        return self.arm, self.control


TRIALS = (
    Trial(
        "calculator",
        "countdown_calculator",
        Arm("calculator"),
        Arm("no calculator", grpo=("task.calculator=head", "sampling.stop=[]")),
    ),
    Trial(
        "guess_number",
        "guess_number",
        Arm("hints"),
        Arm("no hints", sft=("task.hints=none",), grpo=("task.hints=none",)),
    ),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = [trial.name for trial in TRIALS]
    parser.add_argument("trials", nargs="*", choices=names, default=names)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "conversations")
    arguments = parser.parse_args()
    print(measure(arguments.trials, arguments.seeds, arguments.out))  # noqa: T201 - a script's output


def measure(names: Sequence[str], seeds: Sequence[int], out: Path) -> str:
    """Run what is not done yet, write the results, and return the tables."""
    lines, tables = [], []
    for trial in (trial for trial in TRIALS if trial.name in names):
        found = [train(trial, arm, seed, out) for seed in seeds for arm in trial.arms]
        lines += found
        tables.append(f"## {trial.name}\n\n{table(trial, found)}")
    (out / "results.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    report = "\n".join(tables)
    (out / "table.md").write_text(report, encoding="utf-8")
    return report


def train(trial: Trial, arm: Arm, seed: int, out: Path) -> dict[str, Any]:
    """Run one arm with one seed if that is not done yet; return its figures."""
    folder = out / f"{trial.name}-{arm.name.replace(' ', '-')}-seed{seed}"
    if not finished(folder):
        overrides = (f"model={{path: {base_of(trial, arm, out).resolve()}}}", *arm.grpo, f"seed={seed}")
        reasonrl.run(RECIPES / f"{trial.recipe}_grpo.yaml", overrides, run_dir=folder)
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    before, after = (figures(summary["eval"][when]["suites"][SUITE]) for when in ("first", "last"))
    seconds = round(summary["wall_s"])
    return {"trial": trial.name, "arm": arm.name, "seed": seed, "before": before, "after": after, "seconds": seconds}


def base_of(trial: Trial, arm: Arm, out: Path) -> Path:
    """The checkpoint that the arm starts from, made by SFT if that is not done yet."""
    sharing = next(one for one in trial.arms if one.sft == arm.sft)
    base = out / f"{trial.name}-base-{sharing.name.replace(' ', '-')}"
    if not finished(base):
        sft(RECIPES / f"{trial.recipe}_sft.yaml", arm.sft, run_dir=base)
    return max((base / "checkpoints").glob("step_*"))


def figures(suite: dict[str, Any]) -> dict[str, int]:
    return {"solved": round(suite["accuracy"] * suite["problems"]), "problems": suite["problems"]}


def table(trial: Trial, lines: Sequence[dict[str, Any]]) -> str:
    """A row a run, a row for all seeds of an arm, and the margin over the control."""
    rows = []
    arms = [[line for line in lines if line["arm"] == arm.name] for arm in trial.arms]
    for arm, runs in zip(trial.arms, arms, strict=True):
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

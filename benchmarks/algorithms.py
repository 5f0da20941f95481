"""Every algorithm on Countdown at equal compute: the same base model, problems and number of sampled completions.

    python benchmarks/algorithms.py [--seeds 0 1 2] [--steps 30] [--only grpo rloo] [--out FOLDER]

Everything that has finished is kept in ``--out`` and not done again, so the command can be interrupted and repeated.
GRPO's 30 steps take 6 minutes on one core. An algorithm that filters groups (DAPO) samples more in a step, so it takes
fewer steps: as many as the completions of the others allow.

Writes ``table.md``, in alphabetical order: intervals that overlap rank nothing. "flat groups": sampled groups whose
completions all earned the same; "no gradient": completions of the trained batches that taught nothing.
"""

import argparse
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from learning import RECIPES, ROOT, finished
from learning_report import MAIN, markdown, share_with_interval

import reasonrl
from reasonrl.rundir.jsonl import read_jsonl

HEADER = (
    "",
    "held out",
    "of each seed",
    "tokens",
    "flat groups",
    "no gradient",
    "sampled",
    "trained tokens",
    "seconds",
)
PILOT_STEPS = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--only", nargs="+", choices=sorted(recipes()), default=sorted(recipes()))
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "algorithms")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    rows = []
    for name in arguments.only:
        runs = [train_once(name, seed, arguments.steps, arguments.out) for seed in arguments.seeds]
        rows.append(row(name, runs))
        (arguments.out / "table.md").write_text(markdown(HEADER, rows), encoding="utf-8")
    print(markdown(HEADER, rows))  # noqa: T201 - a script's output


def recipes() -> dict[str, Path]:
    """Algorithm -> its Countdown recipe."""
    found = [
        *RECIPES.glob("algorithms/countdown_*.yaml"),
        RECIPES / "countdown_ppo.yaml",
        RECIPES / "countdown_grpo.yaml",
    ]
    return {path.stem.removeprefix("countdown_"): path for path in found}


def train_once(name: str, seed: int, steps: int, out: Path) -> Path:
    """The folder of a finished run."""
    folder = out / f"{name}-seed{seed}-steps{steps}"
    if not finished(folder):
        if name == "dapo":
            steps = affordable_steps(name, seed, steps, out)
        reasonrl.run(recipes()[name], overrides(seed, steps), run_dir=folder)
    return folder


def affordable_steps(name: str, seed: int, steps: int, out: Path) -> int:
    """How many steps sample as many completions as ``steps`` without a filter, judged by the first few."""
    folder = out / f"{name}-seed{seed}-pilot"
    if not finished(folder):
        reasonrl.run(recipes()[name], [*overrides(seed, PILOT_STEPS), "evaluation.every=0"], run_dir=folder)
    a_step = mean(line["group/sampling_rounds"] for line in read_jsonl(folder / "metrics.jsonl"))
    return max(1, math.floor(steps / a_step))


def overrides(seed: int, steps: int) -> list[str]:
    others = [f"evaluation.suites.{name}=null" for name in ("four_numbers", "greedy")]
    return [f"seed={seed}", f"trainer.steps={steps}", f"evaluation.every={steps}", "checkpoint.every=0", *others]


def row(name: str, folders: Sequence[Path]) -> list[str]:
    """All seeds counted together; the range says how far they are apart."""
    results = [summary(folder)["eval"]["last"]["suites"][MAIN] for folder in folders]
    lines = [list(read_jsonl(folder / "metrics.jsonl")) for folder in folders]
    each = [result["accuracy"] for result in results]
    spread = f", sd {100 * stdev(each):.1f}" if len(each) > 1 else ""
    return [
        name,
        share_with_interval(results),
        " ".join(f"{100 * x:.1f}" for x in each) + spread,
        f"{mean(result['length_tokens'] for result in results):.0f}",
        mean_of(lines, "group/zero_std_frac"),
        mean_of(lines, "batch/dropped_frac"),
        f"{mean(sum(sampled_tokens(line) for line in run) for run in lines) / 1e6:.2f} M",
        f"{mean(sum(line['batch/train_tokens'] for line in run) for run in lines) / 1e6:.2f} M",
        f"{mean(summary(folder)['wall_s'] for folder in folders):.0f}",
    ]


def sampled_tokens(line: Mapping[str, Any]) -> float:
    return float(line["throughput/rollout_tokens_per_s"]) * float(line["time/rollout_s"])


def mean_of(runs: Sequence[Sequence[Mapping[str, Any]]], key: str) -> str:
    return f"{mean(line[key] for run in runs for line in run):.0%}"


def summary(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    return found


if __name__ == "__main__":
    main()

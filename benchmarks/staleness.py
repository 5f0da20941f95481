"""Compare accuracy on Countdown with samples that are current and one step old: `trainer.max_staleness` 0 and 1.

    python benchmarks/staleness.py --url http://127.0.0.1:8000 [--seeds 0 1 2] [--steps 16] [--out DIR]

Trains `countdown_grpo` on a vLLM server that runs already (docs/vllm.md says how one is started for `countdown-base`):
every seed sampling before the update and during it, with the same steps and the same held-out problems. The first
seed's run that samples ahead is killed with SIGKILL halfway and resumed. Writes ``results.jsonl``, a line a run, and
``table.md``; everything that has finished is kept in ``--out`` and not done again. Exits with 1 if the accuracies
differ by more than the 95% interval of their difference.
"""

import argparse
import json
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from conversations import figures, pooled, share
from learning import finished
from learning_report import markdown
from measure import show

from reasonrl.rundir.jsonl import read_jsonl
from reasonrl.statistics.proportions import Z95

ROOT = Path(__file__).resolve().parents[1]
SUITE = "held_out"
MODES = ("before", "during")
OPTIONS = (
    "rollout_backend.name=vllm",
    "rollout_backend.mode=server",
    "rollout_backend.timeout_s=3600",
    "rollout_correction={}",
    f"evaluation.suites.{SUITE}.problems=512",
    "evaluation.suites.four_numbers=null",
    "evaluation.suites.greedy=null",
    "evaluation.every=0",
    "checkpoint.every=3",
    "logging.report=false",
)
HEADER = ("samples", "seed", "accuracy before", "after", "s a step", "oldest sample", "KL to sampler", "hidden")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--url", nargs="+", required=True, help="of the servers")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=16)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "staleness")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    found = []
    for seed in arguments.seeds:
        for mode in MODES:
            is_killed = mode == "during" and seed == arguments.seeds[0]
            found.append(train(mode, seed, arguments, is_killed=is_killed))
            show(json.dumps(found[-1]))
    report, is_equal = table(found)
    (arguments.out / "results.jsonl").write_text("".join(json.dumps(line) + "\n" for line in found), encoding="utf-8")
    (arguments.out / "table.md").write_text(report, encoding="utf-8")
    show(report)
    return int(not is_equal)


def train(mode: str, seed: int, arguments: argparse.Namespace, *, is_killed: bool) -> dict[str, Any]:
    """Run one seed in one mode if that is not done yet; return its figures."""
    run = arguments.out / f"{mode}-seed{seed}"
    if not finished(run):
        urls = f"rollout_backend.url=[{','.join(arguments.url)}]"
        options = (*OPTIONS, urls, f"trainer.max_staleness={MODES.index(mode)}", f"trainer.steps={arguments.steps}")
        process = start("train", "countdown_grpo", *options, f"seed={seed}", "--run-dir", str(run))
        if is_killed:
            kill(process, run, arguments.steps // 2)
            process = start("resume", str(run))
        if process.wait():
            raise SystemExit(f"{run}: ended with status {process.returncode}; see above, and start this again")
    return {"mode": mode, "seed": seed, "killed": is_killed, **measured(run)}


def start(*arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", "reasonrl", *arguments])


def kill(process: subprocess.Popen[bytes], run: Path, step: int) -> None:
    """Kill a run with SIGKILL once it has finished ``step``."""
    lines = run / "metrics.jsonl"
    while not lines.exists() or len(lines.read_text(encoding="utf-8").splitlines()) < step:
        if process.poll() is not None:
            raise SystemExit(f"{run}: ended with status {process.returncode} before step {step}; see above")
        time.sleep(0.2)
    process.send_signal(signal.SIGKILL)
    process.wait()
    show(f"{run}: killed after step {step}")


def measured(run: Path) -> dict[str, Any]:
    """Figures of a finished run.

    ``hidden``: share of the sampling that took place during the update, from the second step on. ``oldest``: the most
    optimizer steps that a sample's weights were behind.
    """
    summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    before, after = (figures(summary["eval"][when]["suites"][SUITE]) for when in ("first", "last"))
    steps = [line for line in read_jsonl(run / "metrics.jsonl") if "step" in line]
    ahead = [line for line in steps if "time/rollout_ahead_s" in line]
    waited, sampled = (sum(line[f"time/{name}_s"] for line in ahead) for name in ("rollout", "rollout_ahead"))
    return {
        "before": before,
        "after": after,
        "steps": len(steps),
        "step_s": median(line["time/step_s"] for line in steps),
        "oldest": max(line.get("rollout/staleness_max", 0.0) for line in steps),
        "kl": max((line["policy/kl_stale_k3"] for line in ahead), default=None),
        "hidden": 1 - waited / sampled if sampled else None,
    }


def table(lines: Sequence[dict[str, Any]]) -> tuple[str, bool]:
    """A row a run and one for all seeds of a mode, the difference, and whether its interval holds 0."""
    rows, runs = [], {mode: [line for line in lines if line["mode"] == mode] for mode in MODES}
    for mode in MODES:
        rows += [row(mode, f"{line['seed']}{', killed' if line['killed'] else ''}", [line]) for line in runs[mode]]
        rows.append(row(mode, "all", runs[mode]))
    during, before = (pooled([line["after"] for line in runs[mode]]) for mode in reversed(MODES))
    p, q = during[0] / during[1], before[0] / before[1]
    half = Z95 * (p * (1 - p) / during[1] + q * (1 - q) / before[1]) ** 0.5
    low, high = (100 * (p - q + side * half) for side in (-1, 1))
    note = f"During less before: {100 * (p - q):+.1f} points ({low:+.1f} to {high:+.1f}).\n"
    return f"{markdown(HEADER, rows)}\n{note}", low <= 0 <= high


def row(mode: str, label: str, runs: Sequence[dict[str, Any]]) -> list[str]:
    accuracies = [share([line[when] for line in runs]) for when in ("before", "after")]
    kls, hidden = ([line[key] for line in runs if line[key] is not None] for key in ("kl", "hidden"))
    return [
        f"{mode} the update",
        label,
        *accuracies,
        f"{median(line['step_s'] for line in runs):.1f}",
        f"{max(line['oldest'] for line in runs):.0f}",
        f"{max(kls):.4f}" if kls else "-",
        f"{median(hidden):.0%}" if hidden else "-",
    ]


if __name__ == "__main__":
    raise SystemExit(main())

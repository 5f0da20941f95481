"""A long run of tiny steps with evaluations, transcripts and checkpoints: does anything grow?

    python benchmarks/soak.py [--steps 10000] [--out FOLDER]

Trains a tiny random model in a process of its own and reads that process's memory, open files and run folder every few
seconds. Prints the slope of the resident memory from the first fifth of the steps to the last step, in MB per 1,000
steps, the memory while the report is written behind it, and the open files. Exits with status 1 if memory grows by 1 MB
per 1,000 steps or more.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil

from reasonrl.testing.models import tiny_model_folder

RECIPE = """
name: soak
model: {{path: {model}}}
task: {{name: countdown, template: compact, max_numbers: 3}}
algorithm: {{name: grpo}}
sampling: {{group_size: 2, max_completion_tokens: 4}}
trainer: {{steps: {steps}, prompts_per_step: 2}}
evaluation: {{every: 100, suites: {{held_out: {{problems: 4}}}}}}
checkpoint: {{every: 100, keep: 2}}
logging: {{transcripts_per_step: 2}}
"""
MOST_MB = 1.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--out", type=Path, help="keep the run here")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = (arguments.out or Path(temporary)).absolute()
        samples = watch(folder, arguments.steps)
    late = [sample for sample in samples if arguments.steps / 5 < sample[0] < arguments.steps]
    end = max((memory for step, memory, _ in samples if step == arguments.steps), default=0)
    steps, memory, files = np.array(late, dtype=float).T
    slope = np.polyfit(steps / 1000, memory / 1e6, 1)[0]
    sizes = f"{memory[0] / 1e6:.0f} to {memory[-1] / 1e6:.0f} MB, at the end {end / 1e6:.0f} MB"
    entries = f"{int(files.min())} to {int(files.max())} open files"
    print(f"{arguments.steps} steps, {len(late)} samples: {slope:+.3f} MB per 1,000 steps, {sizes}, {entries}")  # noqa: T201
    return int(slope >= MOST_MB)


def watch(folder: Path, steps: int) -> list[tuple[int, int, int]]:
    """Step, bytes resident and open files, every few seconds of the run."""
    folder.mkdir(parents=True, exist_ok=True)
    model = tiny_model_folder(folder / "model")
    (folder / "soak.yaml").write_text(RECIPE.format(model=model, steps=steps), encoding="utf-8")
    command = [sys.executable, "-m", "reasonrl", "train", str(folder / "soak.yaml"), "--run-dir", str(folder / "run")]
    with (folder / "log.txt").open("w", encoding="utf-8") as log:
        process = subprocess.Popen([*command, "--plain"], stdout=log, env=os.environ | {"OMP_NUM_THREADS": "1"})
        seen, found = psutil.Process(process.pid), []
        while process.poll() is None:
            time.sleep(2)
            if (step := last_step(folder / "run" / "metrics.jsonl")) and process.poll() is None:
                found.append((step, seen.memory_info().rss, seen.num_fds()))
    assert process.returncode == 0, (folder / "log.txt").read_text(encoding="utf-8")[-1000:]
    return found


def last_step(metrics: Path) -> int:
    """0 before the first."""
    if not metrics.exists():
        return 0
    with metrics.open("rb") as file:
        file.seek(max(0, metrics.stat().st_size - 20_000))
        lines = file.read().split(b"\n")
    return next((int(json.loads(line)["step"]) for line in reversed(lines[1:-1])), 0)


if __name__ == "__main__":
    sys.exit(main())

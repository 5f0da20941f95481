"""A chat model trained with all weights, 8-bit optimizer states, LoRA and QLoRA: what each learns and needs.

    python benchmarks/low_memory.py MODEL [--steps 30] [--only lora qlora] [--out FOLDER]

MODEL is a folder or a name on the Hub, for example HuggingFaceTB/SmolLM2-135M-Instruct. Needs the extras `lora` and
`low-memory`. Each run is a process of its own, since its memory is that of the process. Finished runs are kept in
`--out` and not repeated. SmolLM2-135M takes about 11 minutes a run on one core.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path

from algorithms import summary
from learning import ROOT, finished
from learning_report import MAIN, markdown, share_with_interval

from reasonrl.rundir.jsonl import read_jsonl

HERE = Path(__file__).parent
LORA = "rank: 16, alpha: 32"
WAYS = {
    "all weights": ["optimizer.learning_rate=1e-5"],
    "8-bit states": ["optimizer.learning_rate=1e-5", "optimizer.name=adamw_8bit"],
    "LoRA": ["optimizer.learning_rate=2e-4", f"model.lora={{{LORA}}}"],
    "QLoRA": ["optimizer.learning_rate=2e-4", f"model.lora={{{LORA}, quantization: nf4}}"],
}
RECIPE = """
name: low_memory
model: {dtype: float32}
task: {name: sums}
algorithm: {name: grpo}
sampling: {group_size: 8, max_prompt_tokens: 96, max_completion_tokens: 6}
trainer: {prompts_per_step: 8, max_tokens_per_microbatch: 2048}
evaluation: {every: 0, suites: {held_out: {problems: 200, temperature: 0.0}}}
checkpoint: {every: 0}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--only", nargs="+", choices=list(WAYS), default=list(WAYS))
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "low_memory")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "low_memory.yaml").write_text(RECIPE, encoding="utf-8")
    rows = []
    for way in arguments.only:
        folder = arguments.out / f"{way.replace(' ', '-')}-steps{arguments.steps}"
        if not finished(folder):
            train(folder, [f"model.path={arguments.model}", f"trainer.steps={arguments.steps}", *WAYS[way]])
        rows.append(row(way, folder))
    print(markdown(("", "before", "after", "peak GiB"), rows))  # noqa: T201 - a script's output


def train(folder: Path, overrides: list[str]) -> None:
    recipe, task = folder.parent / "low_memory.yaml", HERE / "sums_task.py"
    command = [sys.executable, "-m", "reasonrl", "train", str(recipe), *overrides]
    command += ["--plugin", str(task), "--run-dir", str(folder)]
    # Large tensors are given back one by one, so that the peak is what the step needs.
    subprocess.run(command, env=os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536"}, check=True)


def row(way: str, folder: Path) -> list[str]:
    """Held-out accuracy before and after, and the peak of the process."""
    steps = list(read_jsonl(folder / "metrics.jsonl"))
    accuracies = [share_with_interval([when["suites"][MAIN]]) for when in summary(folder)["eval"].values()]
    return [way, *accuracies, f"{max(step['memory/peak_gib'] for step in steps):.2f}"]


if __name__ == "__main__":
    main()

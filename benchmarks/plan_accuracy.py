"""Compare the memory that `reasonrl plan` predicts with the peak of a real run, on this machine's CPU.

    python benchmarks/plan_accuracy.py [--only NAME] [--json FILE]

Each configuration runs two steps of a recipe in a process of its own, on a model with random weights. Measured is the
peak of the resident memory during the run, less what is resident after all imports and a run of a tiny model.
The completions of a random model practically never end early, so all of them have the length that the plan assumes.
"""

import argparse
import gc
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

PROMPT = 39
"""Tokens of a prompt of the template `compact` with numbers of two digits."""

SHAPES = {
    "135M": {
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
    },
    "60M": {
        "hidden_size": 512,
        "intermediate_size": 1408,
        "num_hidden_layers": 12,
        "num_attention_heads": 8,
        "num_key_value_heads": 2,
    },
    "36M": {
        "hidden_size": 384,
        "intermediate_size": 1024,
        "num_hidden_layers": 10,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
    },
    "tiny": {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    },
}
KL = ("algorithm.kl.coef=0.01", "algorithm.kl.estimator=k3", "algorithm.kl.placement=loss")
PPO = ("algorithm.name=ppo", "algorithm.lam=1.0")
SHARED, SEPARATE = (*PPO, "critic.kind=shared"), (*PPO, "critic.kind=separate")
CHECKPOINTING = ("model.gradient_checkpointing=true",)
LORA = ("model.lora.rank=16",)
NF4 = (*LORA, "model.lora.quantization=nf4")
GRID = {
    "GRPO 36M": ("36M",),
    "GRPO 36M reference, checkpointing": ("36M", *KL, *CHECKPOINTING),
    "GRPO 36M LoRA": ("36M", *LORA),
    "GRPO 36M LoRA, reference, checkpointing": ("36M", *LORA, *KL, *CHECKPOINTING),
    "GRPO 36M QLoRA": ("36M", *NF4),
    "GRPO 36M one micro-batch": ("36M", "trainer.max_tokens_per_microbatch=4096"),
    "GRPO 36M moments in bfloat16": ("36M", "optimizer.name=adamw_bf16"),
    "PPO 36M shared critic, checkpointing": ("36M", *SHARED, *CHECKPOINTING),
    "PPO 36M separate critic, reference": ("36M", *SEPARATE, *KL),
    "GRPO 60M": ("60M",),
    "GRPO 60M LoRA": ("60M", *LORA),
    "PPO 60M shared critic": ("60M", *SHARED),
    "PPO 60M separate critic, checkpointing": ("60M", *SEPARATE, *CHECKPOINTING),
    "GRPO 135M": ("135M",),
    "GRPO 135M QLoRA": ("135M", *NF4),
}
RECIPE = """
name: accuracy
seed: 0
device: cpu
output_dir: {folder}/runs
model: {{path: {model}, init: random, dtype: float32}}
task:
  {{name: countdown, template: compact, min_numbers: 3, max_numbers: 3, min_number: 10, max_number: 30, min_target: 10}}
rewards: {{mine: {{path: "{folder}/reward.py:score"}}}}
algorithm: {{name: grpo}}
sampling: {{group_size: 8, max_prompt_tokens: 39, max_completion_tokens: 25}}
trainer: {{steps: 2, prompts_per_step: 4, max_tokens_per_microbatch: 1024}}
evaluation: {{every: 0}}
checkpoint: {{every: 0}}
logging: {{transcripts_per_step: 0}}
"""
REWARD = """
def score(problem, completion):
    return float(sum(completion.token_ids) % 7) / 7
"""


def main() -> int:
    """Run the grid, or one measurement in a process that `main` has started."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", help="configurations whose names contain this")
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        sys.stdout.write(json.dumps(measure(json.loads(arguments.measure))))
        return 0
    rows = []
    for row in compare(arguments.only or ""):
        rows.append(row)
        sys.stdout.write(format_row(row) + "\n")
        sys.stdout.flush()
    worst = max(abs(row["measured"] / row["predicted"] - 1) for row in rows)
    sys.stdout.write(f"{len(rows)} configurations, largest difference {worst:.1%}\n")
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2), encoding="utf-8")
    return 0


def compare(only: str) -> Iterator[dict[str, Any]]:
    """Predict and measure every configuration."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "reward.py").write_text(REWARD, encoding="utf-8")
        for name, (shape, *overrides) in GRID.items():
            if only in name:
                asked = {"folder": folder, "shape": shape, "overrides": overrides}
                # Large tensors are mapped and given back one by one; glibc would raise its threshold with time.
                environ = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536", "HF_HUB_OFFLINE": "1"}
                command = [sys.executable, __file__, "--measure", json.dumps(asked)]
                done = subprocess.run(command, env=environ, check=True, capture_output=True, text=True)
                yield {"name": name, **json.loads(done.stdout.splitlines()[-1])}


def measure(asked: dict[str, Any]) -> dict[str, Any]:
    """Bytes predicted and measured, in this fresh process."""
    folder = Path(asked["folder"])
    run(write_recipe(folder, "tiny"), asked["overrides"])
    recipe = write_recipe(folder, asked["shape"])
    plan = predict(recipe, asked["overrides"])
    gc.collect()  # what is left of the tiny run
    before = psutil.Process().memory_info().rss
    highest = run(recipe, asked["overrides"])
    return {
        "stage": plan.peak_stage,
        "parameters": plan.counted.model,
        "predicted": plan.peak,
        "measured": highest - before,
    }


def write_recipe(folder: Path, shape: str) -> Path:
    """A recipe for a folder with the config of a shape and a tokenizer, without weights."""
    from transformers import AutoConfig

    from reasonrl.testing.models import byte_tokenizer

    model = folder / shape
    if not model.exists():
        fields = {"vocab_size": 49152, "max_position_embeddings": 2048, "tie_word_embeddings": True}
        AutoConfig.for_model("qwen2", **SHAPES[shape], **fields, eos_token_id=256, pad_token_id=257).save_pretrained(
            model
        )
        byte_tokenizer().save_pretrained(model)
    path = folder / f"{shape}.yaml"
    path.write_text(RECIPE.format(folder=folder, model=model), encoding="utf-8")
    return path


def predict(recipe: Path, overrides: list[str]) -> Any:
    """The plan for this machine's CPU."""
    from reasonrl.planning.here import find_target
    from reasonrl.planning.plan import make_plan
    from reasonrl.plugins import load_plugins
    from reasonrl.recipe.load import load_recipe

    plugins = load_plugins()
    return make_plan(load_recipe(recipe, overrides, plugins), plugins, find_target(None, 1, "none"))


def run(recipe: Path, overrides: list[str]) -> int:
    """Two steps, the first of which ends with the optimizer's states. Returns the peak that the metrics tell."""
    import reasonrl

    result = reasonrl.run(recipe, overrides=overrides)
    lines = (result.run_dir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return int(max(json.loads(line)["memory/peak_gib"] for line in lines) * (1 << 30))


def format_row(row: dict[str, Any]) -> str:
    """One line of the table."""
    predicted, measured = (row[key] / 2**20 for key in ("predicted", "measured"))
    difference = measured / predicted - 1
    return f"{row['name']:<34} {predicted:7.0f} {measured:7.0f} MiB  {difference:+6.1%}  {row['stage']}"


if __name__ == "__main__":
    sys.exit(main())

"""Writes the table of Qwen2.5 sizes and GPU classes into ``docs/gpu-memory.md``, from `reasonrl plan`. Takes minutes.

python scripts/plan_tables.py
"""

import sys
from collections.abc import Iterator
from pathlib import Path

from reasonrl.planning.gpus import find_gpu
from reasonrl.planning.plan import Plan, Target, make_plan
from reasonrl.planning.text import gib
from reasonrl.plugins import load_plugins
from reasonrl.recipe.load import check_recipe

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs/gpu-memory.md"
BEGIN, END = "<!-- Written by scripts/plan_tables.py -->", "<!-- End of what scripts/plan_tables.py writes -->"
RECIPE = ROOT / "recipes/tinyzero/qwen2.5-1.5b_ppo.yaml"
SIZES = ("0.5B", "1.5B", "3B", "7B")
GRPO = ("algorithm=null", "algorithm.name=grpo", "critic=null", "sampling.group_size=8", "trainer.prompts_per_step=32")
LORA = (*GRPO, "model.lora.rank=16", "rollout_backend=null", "rollout_backend.name=hf")
QLORA = (*LORA, "model.lora.quantization=nf4")
PPO = ("algorithm.kl.coef=0.001",)
Class = tuple[str, str, int]
CLASSES: dict[Class, dict[str, tuple[str, ...]]] = {
    ("1 x 24 GB", "RTX 4090", 1): {"GRPO, all weights": GRPO, "GRPO, LoRA": LORA, "GRPO, QLoRA": QLORA},
    ("1 x 80 GB", "H100", 1): {"GRPO, all weights": GRPO, "PPO, separate critic, KL": PPO},
    ("8 x 80 GB, FSDP", "H100", 8): {"GRPO, all weights": GRPO, "PPO, separate critic, KL": PPO},
}


def main() -> int:
    """Plan every cell and rewrite the page."""
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    table = "\n".join(rows())
    PAGE.write_text(f"{before}{BEGIN}\n\n{table}\n\n{END}{after}", encoding="utf-8")
    return 0


def rows() -> Iterator[str]:
    """A row per class and method, a column per size."""
    yield "| GPUs | method | " + " | ".join(SIZES) + " |"
    yield "|---|---|" + "---|" * len(SIZES)
    for (label, gpu, count), methods in CLASSES.items():
        for method, overrides in methods.items():
            cells = [cell(plan(size, overrides, gpu, count)) for size in SIZES]
            sys.stderr.write(f"{label} {method}: {cells}\n")
            yield f"| {label} | {method} | " + " | ".join(cells) + " |"


def plan(size: str, overrides: tuple[str, ...], gpu: str, count: int) -> Plan:
    """The plan of the TinyZero recipe with another model and method."""
    plugins, found = load_plugins(), find_gpu(gpu)
    resolved = check_recipe(RECIPE, [f"model.path=Qwen/Qwen2.5-{size}", *overrides], plugins)
    return make_plan(resolved, plugins, Target(found, found.gib, count, "fsdp"))


def cell(found: Plan) -> str:
    """What it needs, and the time of a run."""
    need = gib(found.peak + found.reserve)
    if not found.fits:
        return f"no ({need})"
    fast, slow = found.durations
    return f"**{need}**, {fast.hours:.2g} to {slow.hours:.2g} h"


if __name__ == "__main__":
    sys.exit(main())

"""What the recipes for known GPUs need by `reasonrl plan`: in their headers and in a table of the documentation.

python scripts/plan_recipes.py            rewrite both; takes minutes
"""

import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from reasonrl.planning.gpus import find_gpu
from reasonrl.planning.plan import Plan, Target, make_plan
from reasonrl.planning.text import gib, show_range
from reasonrl.plugins import load_plugins
from reasonrl.recipe.load import check_recipe

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs/hardware.md"
TARGETS = {
    "one GPU with 24 GB": ("RTX 4090", 1, 0.40),
    "one GPU with 80 GB": ("H100", 1, 2.50),
    "eight GPUs with 80 GB": ("H100", 8, 2.50),
}
"""Words in a recipe's header -> GPU, how many, dollars per GPU and hour."""


SIZES = ("0.5B", "1.5B", "3B", "7B")
QLORA = ("model.lora={rank: 32, alpha: 64, quantization: nf4}", "rollout_backend={name: hf, max_batch_rows: 64}")
WAYS: dict[str, tuple[str, int, tuple[str, ...]]] = {
    "1 x RTX 4090 (24 GB), all weights": ("RTX 4090", 1, ()),
    "1 x RTX 4090 (24 GB), QLoRA, sampled by `hf`": ("RTX 4090", 1, QLORA),
    "1 x H100 (80 GB), all weights": ("H100", 1, ()),
    "8 x H100 (80 GB), all weights, FSDP": ("H100", 8, ()),
}
"""Rows of the table of sizes -> GPU, how many, overrides of Qwen2.5-0.5B's GRPO recipe."""


def main() -> int:
    """Plan every recipe, and the sizes on the classes of GPUs; rewrite headers and tables."""
    rows = ["| recipe | method | GPUs | GiB of each | hours | dollars |", "|---|---|---|---|---|---|"]
    for path in recipes():
        plan, text = plan_of(path), path.read_text(encoding="utf-8")
        path.write_text(with_line(text, line_of(plan)), encoding="utf-8")
        rows.append(row_of(text, plan))
        print(rows[-1], flush=True)  # noqa: T201 - a script
    write_table("recipes", rows)
    write_table("sizes", list(table_of_sizes()))
    return 0


def write_table(name: str, rows: list[str]) -> None:
    """Replace the rows between the page's comments."""
    begin, end = f"<!-- scripts/plan_recipes.py: {name} -->\n", "\n<!-- end -->"
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(begin)
    after = rest.partition("<!-- end -->")[2]
    PAGE.write_text(before + begin + "\n".join(rows) + end + after, encoding="utf-8")


def table_of_sizes() -> Iterator[str]:
    """GiB of each GPU and hours, by size of Qwen2.5 and GPUs."""
    yield "| GPUs | " + " | ".join(SIZES) + " |"
    yield "|---|" + "---|" * len(SIZES)
    for way, (gpu, count, overrides) in WAYS.items():
        cells = []
        for size in SIZES:
            more = [f"model.path=Qwen/Qwen2.5-{size}", *overrides]
            plan = plan_on(ROOT / "recipes/qwen2.5/0.5b_grpo.yaml", gpu, count, None, more)
            fast, slow = plan.durations
            need, time = gib(plan.peak + plan.reserve), f"{show_range(fast.hours, slow.hours)} h"
            cells.append(f"{need}, {time}" if plan.fits else f"does not fit: {need}")
        yield f"| {way} | " + " | ".join(cells) + " |"


def recipes() -> list[Path]:
    """Those that name a GPU."""
    found = sorted([*ROOT.glob("recipes/*/*.yaml"), *ROOT.glob("plugins/reasonrl-math/src/*/recipes/*.yaml")])
    return [path for path in found if target_of(path.read_text(encoding="utf-8"))]


def plan_of(path: Path) -> Plan:
    """The plan of a recipe on the GPUs that its header names."""
    name, count, price = target_of(path.read_text(encoding="utf-8"))[0]
    return plan_on(path, name, count, price)


def plan_on(path: Path, name: str, count: int, price: float | None, overrides: Sequence[str] = ()) -> Plan:
    """The plan of a recipe on so many GPUs."""
    plugins, gpu = load_plugins(), find_gpu(name)
    resolved = check_recipe(path, overrides, plugins)
    return make_plan(resolved, plugins, Target(gpu, gpu.gib, count, "fsdp"), price=price)


def target_of(text: str) -> list[tuple[str, int, float]]:
    """The GPUs in a header's words; none for a CPU."""
    header = " ".join(re.findall(r"^# (.*)", text, re.MULTILINE))
    return [target for words, target in TARGETS.items() if words in header]


def line_of(plan: Plan) -> str:
    """The line of the header."""
    gpus, verdict = plan.target.name.removesuffix(", FSDP"), "" if plan.fits else ": DOES NOT FIT"
    hours, dollars = costs_of(plan)
    price = f"{dollars} dollars at {plan.price:.2f} an hour"
    return f"# Plan for {gpus}: {need_of(plan)} GiB{verdict}, {hours} hours, {price}."


def need_of(plan: Plan) -> str:
    """GiB and what there is."""
    return f"{gib(plan.peak + plan.reserve)} of {plan.target.gib:.1f}"


def costs_of(plan: Plan) -> tuple[str, str]:
    """Hours and money, as ranges."""
    fast, slow = plan.durations
    return show_range(fast.hours, slow.hours), show_range(*plan.money)


def with_line(text: str, line: str) -> str:
    """The recipe's text with that line at the end of its header."""
    lines = [old for old in text.splitlines() if not old.startswith("# Plan for ")]
    end = next(at for at, old in enumerate(lines) if not old.startswith("#"))
    return "\n".join([*lines[:end], line, *lines[end:]]) + "\n"


def row_of(text: str, plan: Plan) -> str:
    """The recipe's row of the table; the method is the rest of the header's first line."""
    method = text.splitlines()[0].partition(". ")[2].rstrip(".")
    hours, dollars = costs_of(plan)
    return f"| `{plan.recipe}` | {method} | {plan.target.name} | {need_of(plan)} | {hours} | {dollars} |"


if __name__ == "__main__":
    sys.exit(main())

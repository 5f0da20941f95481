"""What is learned on Countdown, with its controls: PPO and GRPO over seeds, and what the base model can do anyway.

    python benchmarks/learning.py [--seeds 0 1 2] [--out benchmarks/results/learning]

Everything that has finished is kept in ``--out`` and not done again, so the command can be interrupted and repeated.
Writes ``table.md`` (95% intervals), ``behaviors.md`` and, with matplotlib installed, ``figure.svg``. One seed takes
about 15 minutes on 2 cores.

Controls: the base model itself at T = 1 and greedy; the base with its give-up token forbidden, at the same token
budget; the base after more SFT, for the duration of a reinforcement learning run.
"""

import argparse
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Any

from learning_report import draw, write_tables

import reasonrl
from reasonrl.observability.reporter import SilentReporter
from reasonrl.plugins import Plugins, load_plugins
from reasonrl.recipe.load import load_recipe
from reasonrl.rundir.jsonl import read_jsonl
from reasonrl.runs.start import sft
from reasonrl.runs.targets import Target, find_target

ROOT = Path(__file__).resolve().parents[1]
RECIPES = ROOT / "recipes"
NO_STOP = ROOT / "benchmarks" / "forbid_stop.py"
ALGORITHMS = ("ppo", "grpo")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "learning")
    arguments = parser.parse_args()
    out, seeds = arguments.out, arguments.seeds
    out.mkdir(parents=True, exist_ok=True)
    runs = {a: {seed: train_once(a, seed, out) for seed in seeds} for a in ALGORITHMS}
    seconds = mean(run["wall_s"] for of_seeds in runs.values() for run in of_seeds.values())
    longer = sft_for(seconds, out)
    controls = {
        "base": [runs["ppo"][seed]["eval"]["first"]["suites"] for seed in seeds],
        "base, give-up forbidden": [
            once(out / f"no-stop-seed{seed}.json", lambda s=seed: without_stop(s)) for seed in seeds
        ],
        "base + SFT, same training time": [
            once(out / f"sft-longer-seed{seed}.json", lambda s=seed: measured(longer, s)) for seed in seeds
        ],
    }
    write_tables(out, controls, runs)
    draw(out, controls, runs)


def once(path: Path, compute: Callable[[], Any]) -> Any:
    """The JSON at ``path``, computed if it is not there yet."""
    if not path.exists():
        path.write_text(json.dumps(compute(), indent=2), encoding="utf-8")
    return json.loads(path.read_text(encoding="utf-8"))


def finished(folder: Path) -> bool:
    """A run folder whose run completed. A run that was cut short is moved aside and done again."""
    summary = folder / "summary.json"
    if summary.exists() and json.loads(summary.read_text(encoding="utf-8"))["outcome"] == "completed":
        return True
    if folder.exists():
        number = len(list(folder.parent.glob(f"{folder.name}.cut-*")))
        folder.rename(folder.with_name(f"{folder.name}.cut-{number}"))
    return False


def train_once(algorithm: str, seed: int, out: Path) -> dict[str, Any]:
    """``summary.json`` of one reinforcement-learning run. Held-out problems and draws are those of the run's seed."""
    folder = out / f"{algorithm}-seed{seed}"
    if not finished(folder):
        reasonrl.run(RECIPES / f"countdown_{algorithm}.yaml", [f"seed={seed}"], run_dir=folder)
    return json.loads((folder / "summary.json").read_text(encoding="utf-8"))


def without_stop(seed: int) -> dict[str, Any]:
    """The base model, its give-up token forbidden, on the suites that a run of ``seed`` evaluates."""
    plugins = load_plugins(files=[str(NO_STOP)])
    resolved = load_recipe(RECIPES / "countdown_ppo.yaml", [f"seed={seed}"], plugins)
    spec = plugins.get("rollout_backend", "hf_no_stop")
    rollout = replace(resolved.rollout_backend, spec=spec, config=spec.config())
    return evaluated(Target(model_path=resolved.model_path, resolved=replace(resolved, rollout=rollout)), plugins)


def measured(folder: Path, seed: int) -> dict[str, Any]:
    """The model of a run folder on the suites that a run of ``seed`` evaluates."""
    plugins = load_plugins()
    resolved = load_recipe(RECIPES / "countdown_ppo.yaml", [f"seed={seed}"], plugins)
    model_path = find_target(str(folder), None, plugins).model_path
    return evaluated(Target(model_path=model_path, resolved=resolved), plugins)


def evaluated(target: Target, plugins: Plugins) -> dict[str, Any]:
    from reasonrl.runs.ask import evaluate_model

    return {result.name: result.to_json() for result in evaluate_model(target, plugins, SilentReporter())}


def sft_for(seconds: float, out: Path) -> Path:
    """The run that trained the base on further demonstrations for ``seconds``."""
    folder = out / "sft-longer"
    if not finished(folder):
        run_sft_once(folder, max(8192, int(measure_sft(out) * seconds)))
    return folder


def measure_sft(out: Path) -> float:
    """Tokens a second of SFT on this machine."""
    folder = out / "sft-rate"
    if not finished(folder):
        run_sft_once(folder, 100_000)
    lines = list(read_jsonl(folder / "metrics.jsonl"))[2:]
    return mean(line["throughput/train_tokens_per_s"] for line in lines)


def run_sft_once(folder: Path, tokens: int) -> None:
    """Demonstrations that the base has not seen, at a tenth of its learning rate, which falls to 0 again."""
    overrides = (
        f"sft.max_tokens={tokens}",
        "model.init=pretrained",
        "seed=1000",
        "optimizer.learning_rate=3.0e-4",
        "evaluation.every=0",
        "checkpoint.every=0",
    )
    sft(RECIPES / "countdown_base_sft.yaml", overrides, run_dir=folder)


if __name__ == "__main__":
    main()

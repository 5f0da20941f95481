"""What is learnt on Countdown, with its controls: PPO and GRPO over seeds, and what the base model can do anyway.

    python benchmarks/learning.py [--seeds 0 1 2] [--out benchmarks/results/learning]

Everything that has finished is kept in ``--out`` and not done again, so the command can be interrupted and repeated.
Writes ``table.md`` (95% intervals) and, with matplotlib installed, ``figure.png``. One seed takes about 6 minutes on 2
cores.

Controls: the base model itself at T = 1 and greedy; the base with its give-up token forbidden, at the same token
budget; the base trained on further demonstrations for as long as a reinforcement-learning run takes.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Any

import reasonrl
from reasonrl.evaluation.statistics import wilson_interval
from reasonrl.observability.jsonl import read_jsonl
from reasonrl.plugins import load_plugins
from reasonrl.trainer.run import sft
from reasonrl.trainer.targets import find_target

ROOT = Path(__file__).resolve().parents[1]
RECIPES = ROOT / "recipes"
NO_STOP = ROOT / "benchmarks" / "forbid_stop.py"
BASE = "countdown-base"
ALGORITHMS = ("ppo", "grpo")
SUITE, GREEDY = "held_out", "greedy"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "learning")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    runs = {
        (algorithm, seed): train_once(algorithm, seed, arguments.out)
        for seed in arguments.seeds
        for algorithm in ALGORITHMS
    }
    forbidden = once(arguments.out / "no_stop.json", base_without_stop)
    seconds = mean(summary["wall_s"] for summary in runs.values())
    longer = sft_for(seconds, arguments.out)
    rows = table_rows(runs, forbidden, longer)
    (arguments.out / "table.md").write_text(as_markdown(rows), encoding="utf-8")
    print(as_markdown(rows))  # noqa: T201 - a script's output
    draw(arguments.out, arguments.seeds)


def once(path: Path, compute: Any) -> Any:
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


def base_without_stop() -> dict[str, Any]:
    """The base model, its give-up token forbidden, on the same suites."""
    from reasonrl.trainer.ask import evaluate_model

    plugins = load_plugins(files=[str(NO_STOP)])
    target = find_target(BASE, None, plugins)
    spec = plugins.get("rollout", "hf_no_stop")
    rollout = replace(target.resolved.rollout, spec=spec, config=spec.config())
    results = evaluate_model(replace(target, resolved=replace(target.resolved, rollout=rollout)), plugins)
    return {result.name: result.to_json() for result in results}


def sft_for(seconds: float, out: Path) -> dict[str, Any]:
    """The base trained on further demonstrations for ``seconds``, at the small rate that ended its training."""
    folder = out / "sft-longer"
    if not finished(folder):
        rate = measure_sft(out)
        tokens = max(8192, int(rate * seconds))
        run_sft_once(folder, tokens)
    plugins = load_plugins()
    from reasonrl.trainer.ask import evaluate_model

    def measure() -> dict[str, Any]:
        results = evaluate_model(
            find_target(str(folder), str(RECIPES / "countdown_ppo.yaml"), plugins), plugins
        )
        return {result.name: result.to_json() for result in results}

    return once(out / "sft-longer.json", measure)


def measure_sft(out: Path) -> float:
    """Tokens a second of SFT on this machine."""
    folder = out / "sft-rate"
    if not finished(folder):
        run_sft_once(folder, 100_000)
    lines = list(read_jsonl(folder / "metrics.jsonl"))[2:]
    return mean(line["throughput/train_tokens_per_s"] for line in lines)


def run_sft_once(folder: Path, tokens: int) -> None:
    overrides = (
        f"sft.max_tokens={tokens}",
        "model.init=pretrained",
        "seed=1000",  # demonstrations that the base model has not seen
        "optimizer.learning_rate=3.0e-4",
        "evaluation.every=0",
        "evaluation.suites=null",
        "checkpoint.every=0",
    )
    sft(RECIPES / "countdown_base_sft.yaml", overrides, run_dir=folder)


def table_rows(
    runs: Mapping[tuple[str, int], Mapping[str, Any]], forbidden: Mapping[str, Any], longer: Mapping[str, Any]
) -> list[tuple[str, ...]]:
    """(what, accuracy at T = 1, greedy accuracy, tokens, seconds)."""
    first = next(iter(runs.values()))["eval"]["first"]["suites"]
    rows = [
        row("base", first),
        row("base, give-up forbidden", forbidden),
        row("base, SFT continued for the same time", longer),
    ]
    for (algorithm, seed), summary in runs.items():
        rows.append(
            row(f"{algorithm.upper()}, seed {seed}", summary["eval"]["last"]["suites"], summary["wall_s"])
        )
    for algorithm in ALGORITHMS:
        mine = [summary for (name, _), summary in runs.items() if name == algorithm]
        rows.append(pooled(f"{algorithm.upper()}, {len(mine)} seeds together", mine))
    return rows


def row(label: str, suites: Mapping[str, Any], seconds: float | None = None) -> tuple[str, ...]:
    sampled, greedy = suites[SUITE], suites[GREEDY]
    return (
        label,
        interval(sampled["accuracy"], sampled["ci95"]),
        interval(greedy["accuracy"], greedy["ci95"]),
        f"{sampled['length_tokens']:.0f}",
        "" if seconds is None else f"{seconds:.0f}",
    )


def pooled(label: str, summaries: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """All seeds' problems counted together; the interval says nothing of the spread between seeds."""
    cells = []
    for suite in (SUITE, GREEDY):
        results = [summary["eval"]["last"]["suites"][suite] for summary in summaries]
        trials = sum(result["problems"] for result in results)
        right = sum(result["accuracy"] * result["problems"] for result in results)
        cells.append(interval(right / trials, wilson_interval(right, trials)))
    length = mean(summary["eval"]["last"]["suites"][SUITE]["length_tokens"] for summary in summaries)
    return (label, *cells, f"{length:.0f}", f"{mean(summary['wall_s'] for summary in summaries):.0f}")


def interval(accuracy: float, bounds: Sequence[float]) -> str:
    return f"{accuracy:.1%} ({bounds[0]:.1%} to {bounds[1]:.1%})"


def as_markdown(rows: Sequence[tuple[str, ...]]) -> str:
    lines = ["| | T = 1 | greedy | tokens | seconds |", "|---|---|---|---|---|"]
    return "\n".join([*lines, *("| " + " | ".join(cells) + " |" for cells in rows)]) + "\n"


def draw(out: Path, seeds: Sequence[int]) -> None:
    """Accuracy and length over steps, a line a run. Left out, with a word, where matplotlib is not installed."""
    try:
        import matplotlib
    except ModuleNotFoundError:
        print("figure.png left out: pip install matplotlib")  # noqa: T201
        return
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    colours = {"ppo": "tab:blue", "grpo": "tab:orange"}
    for algorithm in ALGORITHMS:
        for seed in seeds:
            points = evaluations(out / f"{algorithm}-seed{seed}")
            label = algorithm.upper() if seed == seeds[0] else None
            for axis, key in zip(axes, ("accuracy", "length_tokens"), strict=True):
                axis.plot(
                    [s for s, _ in points], [r[key] for _, r in points], color=colours[algorithm], label=label
                )
    for axis, title in zip(axes, ("held-out accuracy, T = 1", "tokens a completion"), strict=True):
        axis.set(title=title, xlabel="step", ylim=(0, None))
    axes[0].legend()
    figure.savefig(out / "figure.png", dpi=150)


def evaluations(folder: Path) -> list[tuple[int, Mapping[str, Any]]]:
    """(step, figures of the sampled suite) of a run."""
    points = []
    for path in sorted((folder / "evals").glob("step_*/summary.json")):
        points.append((int(path.parent.name.removeprefix("step_")), json.loads(path.read_text())[SUITE]))
    return points


if __name__ == "__main__":
    main()

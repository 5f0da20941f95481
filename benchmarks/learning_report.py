"""The tables and the figure of ``learning.py``."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from reasonrl.statistics.proportions import wilson_interval

Suites = Mapping[str, Any]
Runs = Mapping[str, Mapping[int, Mapping[str, Any]]]

MAIN = "held_out"
SUITES = (MAIN, "four_numbers", "greedy")
HEADER = ("", "3 numbers", "4 numbers", "3, greedy", "tokens", "cut off", "seconds")
BEHAVIORS = (
    ("attempts", "attempts"),
    ("repeated_attempts", "attempts that repeat an earlier one"),
    ("aimed", "last operation aimed at the target"),
    ("true_arithmetic", "steps that are true"),
    ("number_use_legal", "attempts that use each number once"),
    ("verification", "attempts judged rightly"),
    ("false_yes", "false among the attempts called right"),
    ("answer_checked", "answers that were checked before"),
    ("backtracking", "failures followed by another attempt"),
    ("gave_up", "gave up"),
    ("length_tokens_correct", "tokens when right"),
    ("length_tokens_wrong", "tokens when wrong"),
)
COUNTS = ("attempts", "repeated_attempts", "length_tokens_correct", "length_tokens_wrong")
COLORS = {"ppo": "tab:blue", "grpo": "tab:orange"}


def write_tables(out: Path, controls: Mapping[str, Sequence[Suites]], runs: Runs) -> None:
    """``table.md`` (a line a run, then all seeds counted together) and ``behaviors.md``."""
    rows: list[Sequence[str]] = [row(label, suites) for label, suites in controls.items()]
    for algorithm, of_seeds in runs.items():
        for seed, run in of_seeds.items():
            rows.append(row(f"{algorithm.upper()}, seed {seed}", [last(run)], run["wall_s"]))
    for algorithm, of_seeds in runs.items():
        every = list(of_seeds.values())
        label = f"{algorithm.upper()}, {len(every)} seeds together"
        rows.append(row(label, [last(run) for run in every], mean(run["wall_s"] for run in every)))
    forbidden = controls["base, give-up forbidden"]
    notes = [margin(name, [last(run) for run in of_seeds.values()], forbidden) for name, of_seeds in runs.items()]
    (out / "table.md").write_text(markdown(HEADER, rows) + "\n" + "\n".join(notes) + "\n", encoding="utf-8")
    columns = {**controls, **{name.upper(): [last(r) for r in of.values()] for name, of in runs.items()}}
    (out / "behaviors.md").write_text(behavior_table(columns), encoding="utf-8")
    print((out / "table.md").read_text(encoding="utf-8"))  # noqa: T201 - a script's output
    print((out / "behaviors.md").read_text(encoding="utf-8"))  # noqa: T201


def last(run: Mapping[str, Any]) -> Suites:
    return run["eval"]["last"]["suites"]


def row(label: str, seeds: Sequence[Suites], seconds: float | None = None) -> list[str]:
    """Problems of all ``seeds`` counted together; the interval says nothing of the spread between seeds."""
    cells = [share_with_interval([suites[name] for suites in seeds]) for name in SUITES]
    length = mean(suites[MAIN]["length_tokens"] for suites in seeds)
    cut = mean(suites[MAIN]["truncated_frac"] for suites in seeds)
    return [label, *cells, f"{length:.0f}", f"{cut:.0%}", "" if seconds is None else f"{seconds:.0f}"]


def pooled(results: Sequence[Mapping[str, Any]]) -> tuple[float, int]:
    """(completions that were right, completions) of the main suite's results, one sample a problem."""
    trials = sum(result["problems"] for result in results)
    return sum(result["accuracy"] * result["problems"] for result in results), trials


def share_with_interval(results: Sequence[Mapping[str, Any]]) -> str:
    right, trials = pooled(results)
    low, high = wilson_interval(right, trials)
    return f"{right / trials:.1%} ({100 * low:.1f} to {100 * high:.1f})"


def margin(algorithm: str, after: Sequence[Suites], control: Sequence[Suites]) -> str:
    """The difference to the base that may not give up, with the normal 95% interval of two independent shares."""
    right, trials = pooled([suites[MAIN] for suites in after])
    base_right, base_trials = pooled([suites[MAIN] for suites in control])
    p, q = right / trials, base_right / base_trials
    half = 1.96 * math.sqrt(p * (1 - p) / trials + q * (1 - q) / base_trials)
    return (
        f"{algorithm.upper()} less give-up forbidden: {100 * (p - q):+.1f} points "
        f"({100 * (p - q - half):+.1f} to {100 * (p - q + half):+.1f})."
    )


def behavior_table(columns: Mapping[str, Sequence[Suites]]) -> str:
    rows = []
    for key, label in BEHAVIORS:
        cells = [of_behavior(key, seeds) for seeds in columns.values()]
        rows.append([label, *cells])
    return markdown(("", *columns), rows)


def of_behavior(key: str, seeds: Sequence[Suites]) -> str:
    values = [s[MAIN]["behavior"][key] for s in seeds if s[MAIN]["behavior"].get(key) is not None]
    if not values:
        return "-"
    return f"{mean(values):.1f}" if key in COUNTS else f"{mean(values):.0%}"


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "".join("| " + " | ".join(cells) + " |\n" for cells in lines)


def draw(out: Path, controls: Mapping[str, Sequence[Suites]], runs: Runs) -> None:
    """Accuracy, length and attempts over steps, a line a run. Left out, with a word, without matplotlib."""
    try:
        import matplotlib
    except ModuleNotFoundError:
        print("figure.svg left out: pip install matplotlib")  # noqa: T201
        return
    matplotlib.use("Agg")
    matplotlib.rcParams.update({"svg.hashsalt": "reasonrl", "font.size": 9})
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 3, figsize=(9.5, 3.1), layout="constrained")
    panels = (
        ("held-out accuracy, T = 1", lambda r: r["accuracy"]),
        ("tokens a completion", lambda r: r["length_tokens"]),
        ("attempts a completion", lambda r: r["behavior"]["attempts"]),
    )
    for axis, (title, value) in zip(axes, panels, strict=True):
        for algorithm, of_seeds in runs.items():
            for index, seed in enumerate(of_seeds):
                points = evaluations(out / f"{algorithm}-seed{seed}")
                label = algorithm.upper() if index == 0 else None
                steps, values = [step for step, _ in points], [value(result) for _, result in points]
                axis.plot(steps, values, color=COLORS[algorithm], label=label, linewidth=1.2)
        forbidden = mean(value(suites[MAIN]) for suites in controls["base, give-up forbidden"])
        axis.axhline(forbidden, color="gray", linestyle="--", linewidth=1, label="base, give-up forbidden")
        axis.set(title=title, xlabel="step", ylim=(0, None))
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].legend(frameon=False, loc="lower right")
    figure.savefig(out / "figure.svg", metadata={"Date": None})


def evaluations(folder: Path) -> list[tuple[int, Mapping[str, Any]]]:
    """(step, figures of the main suite) of a run."""
    points = []
    for path in sorted((folder / "evals").glob("step_*/summary.json")):
        points.append((int(path.parent.name.removeprefix("step_")), json.loads(path.read_text())[MAIN]))
    return points

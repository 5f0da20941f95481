"""How a step's cost grows with the group size, the length of completions, and the size of the model.

    python benchmarks/scaling.py [--only group length size] [--model FOLDER] [--threads 1] [--repeats 2]

GRPO steps with every row trained and completions of one length, each setting in a process of its own. `--model` adds a
model folder, for example SmolLM2-135M, to the random ones of the size series.
"""

import argparse
import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

from measure import ROOT, Channel, Worker, peak_of_process, record, show, table, workers
from subjects import Subject, figures, from_json, open_subject, use_threads

BASE = ROOT / "plugins" / "reasonrl_countdown" / "models" / "countdown-base"
GROUPS = (4, 8, 16, 32, 64)
LENGTHS = (64, 128, 256, 512, 1024)
SHAPES = {"1M": (128, 6), "4M": (256, 6), "17M": (512, 6), "57M": (768, 9)}
"""Hidden size and layers."""
Point = tuple[str, Subject]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=("group", "length", "size"), default=["group", "length", "size"])
    parser.add_argument("--model", help="folder")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--most", type=int, default=None, help="points of each series")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        series = {"group": by_group, "length": by_length, "size": by_size}
        for name in arguments.only:
            points = list(series[name](Path(temporary), arguments.model))[: arguments.most]
            report(name, [measure(label, subject, arguments) for label, subject in points], arguments)


def by_group(_: Path, __: str | None) -> Iterator[Point]:
    for group in GROUPS:
        yield str(group), Subject(prompts=8, group=group, tokens=64, fixed=True)


def by_length(folder: Path, _: str | None) -> Iterator[Point]:
    longer = folder / "longer"
    shutil.copytree(BASE, longer)
    config = json.loads((longer / "config.json").read_text())
    (longer / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 4096}))
    for length in LENGTHS:
        yield str(length), Subject(model=str(longer), prompts=4, group=8, tokens=length, fixed=True)


def by_size(folder: Path, model: str | None) -> Iterator[Point]:
    from reasonrl.testing.models import tiny_model_folder

    for name, (hidden, layers) in SHAPES.items():
        path = tiny_model_folder(
            folder / name, hidden=hidden, layers=layers, heads=hidden // 64, kv_heads=hidden // 128
        )
        yield name, Subject(model=str(path), prompts=4, group=4, tokens=32, fixed=True)
    if model:
        yield Path(model).resolve().parent.name, Subject(model=model, prompts=4, group=4, tokens=32, fixed=True)


def measure(label: str, subject: Subject, arguments: argparse.Namespace) -> dict[str, Any]:
    """Medians of a setting's steps."""
    settings = {"subject": subject.to_json(), "threads": arguments.threads}
    with workers({label: lambda: Worker("scaling.py", settings, threads=arguments.threads)}) as running:
        steps = [running[label].ask() for _ in range(1 + arguments.repeats)][1:]

    def of(key: str) -> float:
        return median(step["metrics"][key] for step in steps)

    found = {
        "setting": label,
        "weights": running[label].hello["weights"],
        "seconds": median(step["seconds"] for step in steps),
        "rollout_s": of("time/rollout_s"),
        "update_s": of("time/update_s"),
        "tokens_per_s": median(step["tokens"] / step["seconds"] for step in steps),
        "mfu": of("perf/mfu"),
        "executed_over_useful": of("perf/executed_over_useful"),
        "peak_gib": max(step["peak_gib"] for step in steps),
    }
    show(f"  {label}: {found['seconds']:.2f} s, {found['tokens_per_s']:.0f} tokens/s")
    return found


def report(name: str, points: list[dict[str, Any]], arguments: argparse.Namespace) -> None:
    """Print a series and append it to the results."""
    header = (name, "weights", "s a step", "sampling", "update", "tokens/s", "MFU", "executed/useful", "peak GiB")
    rows = [
        [
            point["setting"],
            f"{point['weights'] / 1e6:.1f}M",
            *(f"{point[key]:.2f}" for key in ("seconds", "rollout_s", "update_s")),
            f"{point['tokens_per_s']:.0f}",
            f"{point['mfu']:.1%}",
            f"{point['executed_over_useful']:.2f}",
            f"{point['peak_gib']:.2f}",
        ]
        for point in points
    ]
    show(table(header, rows))
    record("scaling", series=name, threads=arguments.threads, repeats=arguments.repeats, points=points)


def work() -> None:
    """A setting's process."""
    channel = Channel()
    settings = channel.receive()
    use_threads(settings["threads"])
    bench = open_subject(from_json(settings["subject"]))
    channel.send(weights=sum(parameter.numel() for parameter in bench.bundle.policy.model.parameters()))
    peak = peak_of_process()
    while True:
        channel.receive()
        seconds, metrics = bench.step()
        peak = max(peak, metrics["memory/peak_gib"])
        channel.send(**figures(bench, seconds, metrics), peak_gib=peak)


if __name__ == "__main__":
    import sys

    work() if "--worker" in sys.argv else main()

"""Has a step become slower? Compares ratios to the machine's own speed with a baseline that is committed.

    python benchmarks/gate.py [--threads 1] [--repeats 5] [--model FOLDER] [--write]

Fails if sampling or training reach less than 85% of the share of a matrix product that they had, if more than 2%
more operations are executed for each useful one, or if the peak memory is more than 5% higher. `--write` makes the
present figures the baseline. Shares of the machine's speed vary less between machines and hours than seconds do, but a
machine of another kind should have a baseline of its own: `--baseline FILE`.
"""

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from statistics import median

from measure import peak_of_process, record, show
from step import measure
from subjects import Subject, open_subject, use_threads

BASELINE = Path(__file__).parent / "baseline.json"
LIMITS = {
    "sampling_mfu": (-1, 0.15),
    "training_mfu": (-1, 0.15),
    "executed_over_useful": (1, 0.02),
    "peak_gib": (1, 0.05),
}
"""Direction that is worse, and by how much it may be."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="folder; default: the bundled model")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--baseline", type=Path, default=BASELINE)
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    subject = Subject()
    if arguments.model:
        subject = Subject(model=arguments.model, prompts=4, group=4, tokens=32)
    use_threads(arguments.threads)
    known = json.loads(arguments.baseline.read_text()) if arguments.baseline.is_file() else {}
    key = f"{subject.name}, {arguments.threads} threads"
    found = take(subject, arguments.repeats)
    record("gate", subject=key, **found)
    if arguments.write:
        arguments.baseline.write_text(json.dumps({**known, key: found}, indent=2, sort_keys=True) + "\n")
        show(f"wrote {key} to {arguments.baseline}")
        return 0
    if key not in known:
        show(f"{arguments.baseline} has no baseline of {key}; write one with --write")
        return 2
    worse = [name for name in LIMITS if is_worse(name, found, known[key])]
    return int(bool(worse))


def take(subject: Subject, repeats: int) -> dict[str, float]:
    """The best shares of all steps, since other work on the machine can only lower them."""
    bench = open_subject(subject)
    before = peak_of_process()
    steps = measure(bench, repeats)
    return {
        "sampling_mfu": max(step["sampling_mfu"] for step in steps),
        "training_mfu": max(step["training_mfu"] for step in steps),
        "executed_over_useful": median(step["metrics"]["perf/executed_over_useful"] for step in steps),
        "peak_gib": max([before, *(step["metrics"]["memory/peak_gib"] for step in steps)]),
    }


def is_worse(name: str, found: Mapping[str, float], known: Mapping[str, float]) -> bool:
    """Print the comparison of a figure."""
    direction, limit = LIMITS[name]
    change = found[name] / known[name] - 1
    worse = direction * change > limit
    show(f"{'FAIL' if worse else 'ok  '} {name:<22} {known[name]:.4f} -> {found[name]:.4f} ({change:+.1%})")
    return worse


if __name__ == "__main__":
    sys.exit(main())

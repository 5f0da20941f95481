"""Write the newest results of the speed benchmarks into docs/performance.md, with a plot.

    python benchmarks/write_tables.py [--results FILE]

Reads `benchmarks/results/speed.jsonl`, to which every speed benchmark appends. The newest line of each subject counts;
those lines are copied to `docs/assets/performance.jsonl`, and added to what is there already.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from measure import RESULTS, ROOT, show, table

PAGE = ROOT / "docs" / "performance.md"
KEPT = ROOT / "docs" / "assets" / "performance.jsonl"
PLOT = ROOT / "docs" / "assets" / "performance.svg"
BEGIN, END = "<!-- speed: begin -->", "<!-- speed: end -->"
STAGES = ("prefill", "decode", "reward", "log-probs", "forward", "backward", "optimizer", "other")
Line = Mapping[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    lines = newest([*read(KEPT), *read(arguments.results)])
    KEPT.write_text("".join(json.dumps(line, sort_keys=True) + "\n" for line in lines), encoding="utf-8")
    text = PAGE.read_text(encoding="utf-8")
    start, end = text.index(BEGIN) + len(BEGIN), text.index(END)
    PAGE.write_text(text[:start] + "\n" + body(lines) + "\n" + text[end:], encoding="utf-8")
    PLOT.write_text(plot(bars(lines)), encoding="utf-8")
    show(f"{len(lines)} results in {PAGE.relative_to(ROOT)}")


def read(path: Path) -> list[Line]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def newest(lines: Sequence[Line]) -> list[Line]:
    """The last of each subject, in the order of the first."""
    found = {}
    for line in lines:
        found[(line["benchmark"], line.get("subject"), line.get("series"), line.get("threads"))] = line
    return list(found.values())


def body(lines: Sequence[Line]) -> str:
    """All sections that have results."""
    if not lines:
        return ""
    of = {name: [line for line in lines if line["benchmark"] == name] for name in {line["benchmark"] for line in lines}}
    machines = {f"{line['machine']['processor']}, {line['machine']['cores']} cores" for line in lines}
    parts = ["Measured on " + "; ".join(sorted(machines)) + "; 95% intervals in parentheses.", ""]
    for name, section in (
        ("vs_trl", against_trl),
        ("rollout", sampling),
        ("step", stages),
        ("scaling", scaling),
        ("contended", contended),
    ):
        if name in of:
            parts += [*section(of[name]), "", *commands(of[name]), ""]
    return "\n".join(parts)


def against_trl(lines: Sequence[Line]) -> list[str]:
    rows = [
        [
            line["subject"],
            str(line["threads"]),
            str(line["microbatch"]),
            f"{line['seconds']['TRL']['median']:.2f}",
            f"{line['seconds']['reasonrl']['median']:.2f}",
            times(line["tokens_ratio"]),
            f"{line['peak_gib']['TRL']:.2f}",
            f"{line['peak_gib']['reasonrl']:.2f}",
        ]
        for line in lines
    ]
    header = (
        "one GRPO step",
        "threads",
        "TRL's micro-batch, rows",
        "TRL, s",
        "reasonrl, s",
        "completion tokens/s",
        "TRL, GiB",
        "reasonrl, GiB",
    )
    return [
        "### Against TRL",
        "",
        "The same model, prompts, group size, optimizer, one update per batch; both in their own process, in turns.",
        "TRL 1.16 runs without gradient checkpointing and dropout.",
        "",
        table(header, rows),
        "",
        "![Speed relative to other implementations](assets/performance.svg)",
    ]


def sampling(lines: Sequence[Line]) -> list[str]:
    others = list(dict.fromkeys(side for line in lines for side in line["times_faster"]))
    rows = [
        [
            line["subject"],
            str(line["threads"]),
            f"{line['tokens_per_s']['hf']['median']:.0f}",
            *(times(line["times_faster"][side]) if side in line["times_faster"] else "" for side in others),
            f"{line['share_of_bound']:.0%}",
        ]
        for line in lines
    ]
    header = ("sampling", "threads", "`hf`, tokens/s", *(f"over `{side}`" for side in others), "of the bound")
    return ["### Sampling", "", "`hf` against other engines, completions of natural lengths.", "", table(header, rows)]


def stages(lines: Sequence[Line]) -> list[str]:
    header = ("a step of", "threads", "s", *STAGES, "MFU", "of the update", "executed/useful", "padding", "GiB")
    rows = [
        [
            line["subject"],
            str(line["threads"]),
            f"{line['seconds']['median']:.2f}",
            *(f"{line['stages'][stage] / line['seconds']['median']:.1%}" for stage in STAGES),
            f"{line['mfu']['median']:.1%}",
            f"{line['training_mfu']['median']:.1%}",
            f"{line['executed_over_useful']:.2f}",
            f"{line['padding']:.1%}",
            f"{line['peak_gib']:.2f}",
        ]
        for line in lines
    ]
    return ["### Where the time goes", "", table(header, rows)]


def scaling(lines: Sequence[Line]) -> list[str]:
    header = ("setting", "weights", "s a step", "sampling, s", "update, s", "tokens/s", "MFU", "executed/useful", "GiB")
    titles = {"group": "completions per prompt", "length": "tokens per completion", "size": "model"}
    rows = [
        [
            f"{titles[line['series']]}: {point['setting']}",
            f"{point['weights'] / 1e6:.1f}M",
            *(f"{point[key]:.2f}" for key in ("seconds", "rollout_s", "update_s")),
            f"{point['tokens_per_s']:.0f}",
            f"{point['mfu']:.1%}",
            f"{point['executed_over_useful']:.2f}",
            f"{point['peak_gib']:.2f}",
        ]
        for line in lines
        for point in line["points"]
    ]
    return ["### Scaling", "", "Every row is trained, all completions have one length.", "", table(header, rows)]


def contended(lines: Sequence[Line]) -> list[str]:
    rows = [
        [
            line["subject"],
            f"{line['alone']['median']:.2f}",
            f"{line['busy']['median']:.2f}",
            times(line["times_slower"]),
        ]
        for line in lines
    ]
    header = ("a step of", "alone, s", "with a busy process per core, s", "times slower")
    return ["### In company", "", table(header, rows)]


def times(value: Line) -> str:
    span = f" ({value['low']:.2f} to {value['high']:.2f})" if value["low"] is not None else ""
    return f"{value['ratio']:.2f}{span}"


def commands(lines: Sequence[Line]) -> list[str]:
    return [
        "<!-- not run: changes the clone, its results -->",
        "```sh",
        *dict.fromkeys(line["command"] for line in lines),
        "```",
    ]


def bars(lines: Sequence[Line]) -> list[tuple[str, Line]]:
    """What is plotted: how many times faster."""
    found = []
    for line in lines:
        threads = f", {line.get('threads')} thread{'s' * (line.get('threads') != 1)}"
        if line["benchmark"] == "vs_trl":
            found.append((f"TRL: {line['subject']}{threads}", line["tokens_ratio"]))
        if line["benchmark"] == "rollout":
            found += [(f"{side}: {line['subject']}{threads}", value) for side, value in line["times_faster"].items()]
    return found


def plot(found: Sequence[tuple[str, Line]]) -> str:
    """Horizontal bars with intervals, on a scale from 0."""
    row, left, width = 26, 560, 300
    most = max([1.0, *(value["high"] or value["ratio"] for _, value in found)]) * 1.1
    height = row * len(found) + 40

    def x(value: float) -> float:
        return left + width * value / most

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {left + width + 60} {height}" role="img" '
        'aria-label="Times faster than other implementations" font-family="sans-serif" font-size="11" fill="#888">',
        f'<path d="M{x(1):.1f} 4V{height - 30}" stroke="#888" stroke-dasharray="3 3"/>',
    ]
    for number, (label, value) in enumerate(found):
        y = 8 + row * number
        parts += [
            f'<text x="{left - 8}" y="{y + 12}" text-anchor="end">{escape(label)}</text>',
            f'<rect x="{left}" y="{y}" width="{x(value["ratio"]) - left:.1f}" height="16" fill="#4a7fd0"/>',
        ]
        if value["low"] is not None:
            parts.append(
                f'<path d="M{x(value["low"]):.1f} {y + 8}H{x(value["high"]):.1f}" stroke="#c9a227" stroke-width="3"/>'
            )
        parts.append(f'<text x="{x(value["high"] or value["ratio"]) + 6:.1f}" y="{y + 12}">{value["ratio"]:.1f}</text>')
    parts.append(f'<text x="{left}" y="{height - 8}">times faster; the dashed line is equal speed</text></svg>')
    return "\n".join(parts) + "\n"


if __name__ == "__main__":
    main()

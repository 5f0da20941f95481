"""Damage a run folder in every way a disk, a user or an attacker might; and everything that reads one."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from support.sick_runs import write_checkpoint, write_run, write_transcript

from reasonrl.analysis.behaviors import read_timelines
from reasonrl.analysis.compare.cost import cost_to_reach
from reasonrl.analysis.compare.evaluation import read_evaluation
from reasonrl.analysis.doctor import examine
from reasonrl.analysis.report import write_report
from reasonrl.analysis.report.samples import collect
from reasonrl.export.base import find_base
from reasonrl.export.card import write_card
from reasonrl.export.source import open_source
from reasonrl.plugins import Plugins
from reasonrl.rundir.checkpoints import clear_leftovers, find_newest_valid, set_aside_later
from reasonrl.rundir.files import delete
from reasonrl.rundir.folder import RunDir, is_locked
from reasonrl.runs.plugin_files import _recorded
from reasonrl.runs.resume import find_finished_summary, read_manifest
from reasonrl.runs.state import read_state
from reasonrl.runs.targets import locate

FILES = ("run.json", "metrics.jsonl", "summary.json", ".lock", "recipe.yaml", "evals/step_000000/summary.json")
FILES += ("evals/step_000000/held_out.jsonl", "transcripts/step_000001.jsonl", "trackers/state.json")
FILES += tuple(f"checkpoints/step_000040/{name}" for name in ("manifest.json", "config.json", "trainer_state.json"))
FOLDERS = ("checkpoints", "evals", "transcripts", "trackers", "checkpoints/step_000040", "evals/step_000000")
NO_PLUGINS = Plugins(records=[], provided={}, observers=[])
STRAYS = ("step_000099", "step_00009\u0669", "step_0000041", "step_99999999999999999999", ".old-step_000099")


def whole_run(folder: Path) -> Path:
    write_run(folder)
    write_checkpoint(folder, 30)
    state = {"schema": 2, "step": 40, "progress": {}, "is_recorded": True, "record": None, "unfinished": 0}
    state |= {"records": {"first": {}, "last": {}, "metrics_bytes": 0, "wall_s": 1.0, "best": None}}
    (folder / FILES[-1]).write_text(json.dumps({**state, "machine": {}, "identity": {}}), encoding="utf-8")
    row = {"problem_id": "1", "prompt": "p", "info": {"n": 1}, "completion": "c", "correct": True, "reward": 1.0}
    (folder / "evals/step_000000/held_out.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    (folder / "trackers").mkdir()
    (folder / "trackers/state.json").write_text('{"id": "x", "last_step": 3, "ids": {}}', encoding="utf-8")
    write_transcript(folder, 1, 0)
    return folder


def damage(folder: Path, rng: random.Random) -> str:
    """Do one thing to a run folder; say what."""
    name = rng.choice(FILES + FOLDERS if rng.random() < 0.9 else STRAYS)
    path = folder / ("checkpoints" if name in STRAYS else "") / name
    kind = rng.choice(["bits", "cut", "json", "json", "deep", "digits", "text", "fifo", "folder", "link", "gone"])
    content = path.read_bytes() if path.is_file() else b'{"step": 1}'
    if not path.parent.is_dir() or path.parent.is_symlink():
        return "an earlier damage left no place for another"
    delete(path)
    _put(path, kind, content, rng)
    return f"{name}: {kind}"


def _put(path: Path, kind: str, content: bytes, rng: random.Random) -> None:
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "link":
        path.symlink_to(rng.choice([path, path.parent, Path("/dev/zero"), Path("/nowhere"), path.parent / "run.json"]))
    elif kind != "gone":
        path.write_bytes(_content(kind, content, rng))


def _content(kind: str, content: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(content) + 1)
    if kind == "bits":
        return content[:at] + bytes([rng.randrange(256)]) * rng.randrange(1, 9) + content[at + 1 :]
    if kind == "cut":
        return content[:at]
    if kind == "json":
        lines = [line for line in content.split(b"\n") if line]
        return b"\n".join(_tampered(line, rng) for line in lines[:3]) + b"\n"
    depth = 10 ** rng.randrange(1, 6)
    return {
        "deep": content[: rng.choice([0, at])] + rng.choice([b"[", b'{"a":']) * depth,
        "digits": b'{"step": %b}' % (b"9" * depth),
        "text": rng.choice(
            [b"", b"null", b"[]", b"3", b'"x"', b"{}", b"\xff\xfe\x00", b"NaN", b"\n\n", b'{"a": 1e999}']
        ),
    }[kind]


ODD: tuple[Any, ...] = (
    None,
    True,
    -1,
    10**30,
    1.5,
    float("nan"),
    "x",
    "\ud800",
    [],
    [1],
    {},
    {"a": {"b": []}},
    "a" * 999,
)


def _tampered(line: bytes, rng: random.Random) -> bytes:
    try:
        data = json.loads(line)
    except (ValueError, RecursionError):
        return line
    for _ in range(rng.randrange(1, 4)):
        data = _replace(data, rng)
    return json.dumps(data).encode()


def _replace(data: Any, rng: random.Random) -> Any:
    """``data`` with one value, key or item, anywhere in it, replaced."""
    if isinstance(data, dict) and data and rng.random() < 0.85:
        key = rng.choice(list(data))
        if rng.random() < 0.1:
            return {k: v for k, v in data.items() if k != key}
        return {**data, key: _replace(data[key], rng)}
    if isinstance(data, list) and data and rng.random() < 0.7:
        at = rng.randrange(len(data))
        return [*data[:at], _replace(data[at], rng), *data[at + 1 :]]
    return rng.choice(ODD)


def _resume(folder: Path) -> None:
    find_finished_summary(folder, 40)
    read_manifest(folder)
    opened = RunDir.reopen(folder)
    try:
        clear_leftovers(folder)
        newest = find_newest_valid(folder)
        set_aside_later(folder, 40 if newest else -1)
        opened.rewind(30, 10)
    finally:
        opened.close()


def _export(folder: Path) -> None:
    source = open_source(folder)
    write_card(source, find_base(source.manifest), folder.parent, kind="merged", precision="float32", where="x")


READERS: Mapping[str, Callable[[Path], object]] = {
    "resume": _resume,
    "state": lambda folder: read_state(folder / "checkpoints/step_000040"),
    "eval": lambda folder: [locate(str(folder), NO_PLUGINS), list(_recorded(folder))],
    "export": _export,
    "doctor": examine,
    "locked": is_locked,
    "behaviors": lambda folder: [timeline.to_json() for timeline in read_timelines(folder)],
    "compare": lambda folder: read_evaluation(str(folder)).solved("held_out"),
    "cost": lambda folder: cost_to_reach(folder, "held_out", 0.3),
    "samples": lambda folder: collect([folder]),
    "report": lambda folder: write_report([folder], folder.parent / "report.html"),
}

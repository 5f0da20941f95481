"""Run folders written by hand: a healthy run, and the same run with one fault."""

from __future__ import annotations

import functools
import json
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from reasonrl.rundir.manifest import write_manifest

STEPS = 40
Line = dict[str, Any]


def healthy_line(step: int) -> Line:
    """Figures like those of a run that learns; a little different from step to step."""
    wobble = 1.0 + 0.05 * ((step * 7) % 5 - 2)
    progress = step / STEPS
    line = {
        "step": step,
        "train/reward": (0.2 + 0.4 * progress) * wobble,
        "train/unscored_frac": 0.0,
        "train/accuracy": (0.2 + 0.4 * progress) * wobble,
        "train/length_tokens": (40 + 60 * progress) * wobble,
        "train/truncated_frac": 0.2 * progress,
        "group/zero_std_frac": 0.3 * wobble,
        "policy/entropy": 0.35 * wobble,
        "policy/clip_frac": 0.01 * wobble,
        "policy/kl_old_k3": 0.001 * wobble,
        "policy/kl_ref_k3": 0.1 * progress,
        "policy/version": 2.0 * step,
        "rollout/logprob_gap": 6e-7 * wobble,
        "critic/explained_variance": -0.05 + 0.3 * progress,
        "optim/skipped_updates": 0.0,
        "batch/padding_frac": 0.1 * wobble,
        "batch/dropped_frac": 0.2,
        "throughput/rollout_tokens_per_s": 12000 * wobble,
        "throughput/train_tokens_per_s": 9000 * wobble,
        "time/step_s": 5.0 * wobble,
    }
    if step % 10 == 0:
        line |= evaluation(0.18 + 0.36 * progress)
    return line


def evaluation(accuracy: float) -> Line:
    ends = {"accuracy_ci95_low": accuracy - 0.03, "accuracy_ci95_high": accuracy + 0.03}
    return {f"eval/held_out/{name}": value for name, value in {"accuracy": accuracy, **ends}.items()}


def sick(change: Callable[[Line], Mapping[str, Any]], since: int = 21) -> list[Line]:
    """The healthy run, with ``change(line)`` over every line from step ``since`` on."""
    lines = [healthy_line(step) for step in range(1, STEPS + 1)]
    return [{**line, **(change(line) if line["step"] >= since else {})} for line in lines]


def write_run(
    folder: Path,
    lines: Iterable[Line] | None = None,
    *,
    outcome: str | None = "completed",
    recipe: Mapping[str, Any] | None = None,
    precision: str = "float32",
    first_accuracy: float = 0.18,
) -> Path:
    """A run folder with one whole checkpoint; ``outcome=None`` writes no summary."""
    lines = [healthy_line(step) for step in range(1, STEPS + 1)] if lines is None else list(lines)
    write_checkpoint(folder, STEPS)
    (folder / "recipe.yaml").write_text("name: by_hand\n", encoding="utf-8")
    (folder / ".lock").touch()
    whole = {"name": "by_hand", "sampling": {"group_size": 8, "max_completion_tokens": 220}}
    whole |= {"trainer": {"steps": STEPS}, "evaluation": {"suites": {"held_out": {}}}, **(recipe or {})}
    manifest = {"reasonrl": "0.2.0", "recipe": whole, "machine": {"precision": precision}}
    (folder / "run.json").write_text(json.dumps(manifest), encoding="utf-8")
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "metrics.jsonl").write_text(text, encoding="utf-8")
    ends = [first_accuracy - 0.03, first_accuracy + 0.03]
    first = folder / "evals" / "step_000000" / "summary.json"
    first.parent.mkdir(parents=True)
    first.write_text(json.dumps({"held_out": {"accuracy": first_accuracy, "ci95": ends}}), encoding="utf-8")
    if outcome is not None:
        write_summary(folder, outcome, lines[-1]["step"] if lines else 0)
    return folder


def write_checkpoint(folder: Path, step: int) -> Path:
    """A whole checkpoint of two small files."""
    checkpoint = folder / "checkpoints" / f"step_{step:06d}"
    checkpoint.mkdir(parents=True)
    for name, content in checkpoint_files().items():
        (checkpoint / name).write_bytes(content)
    return checkpoint


@functools.cache
def checkpoint_files() -> dict[str, bytes]:
    """Made once: the real writer waits for the disk."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "config.json").write_bytes(b"{}")
        (folder / "model.safetensors").write_bytes(bytes(range(200)))
        write_manifest(folder)
        return {path.name: path.read_bytes() for path in folder.iterdir()}


def write_summary(folder: Path, outcome: str, steps: int, **more: Any) -> None:
    summary = {"outcome": outcome, "steps": steps, "wall_s": 1.0, "eval": {"first": {}, "last": {}}, **more}
    (folder / "summary.json").write_text(json.dumps(summary), encoding="utf-8")


def write_transcript(folder: Path, step: int, policy_version: int) -> None:
    path = folder / "transcripts" / f"step_{step:06d}.jsonl"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"policy_version": policy_version}) + "\n", encoding="utf-8")

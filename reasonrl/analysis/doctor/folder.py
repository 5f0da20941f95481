"""Checks of the run folder: completeness, integrity and order."""

import time
from collections.abc import Iterator
from itertools import pairwise

from reasonrl.analysis.doctor.findings import Finding
from reasonrl.analysis.doctor.records import RunRecords
from reasonrl.rundir.layout import CHECKPOINTS, METRICS, RECIPE, name_step

STUCK_STEPS = 20
"""A step that takes longer than this many typical steps counts as hung."""
STUCK_AT_LEAST_S = 600.0
"""Lower bound: an evaluation or a first kernel compilation may take minutes."""
SHOWN = 5
"""Lines or steps to list before \"...\"."""


def check_folder(run: RunRecords) -> Iterator[Finding]:
    for problem in run.problems:
        yield Finding(
            severity="error",
            check="folder",
            message=problem,
            remedy="restore the file from a backup; if the disk failed or was full, check the other files too",
        )
    if RECIPE in run.missing:
        yield Finding(
            severity="error",
            check="folder",
            message="recipe.yaml is missing; the run cannot be resumed or reproduced",
            remedy="restore it from a backup, or rewrite it from `recipe` in run.json, which has every value",
        )
    if METRICS in run.missing and (any(run.checkpoints) or _steps_claimed(run)):  # step 0 has no metrics
        yield Finding(
            severity="error",
            check="folder",
            message="metrics.jsonl is missing although the run finished steps",
            remedy="restore it from a backup; without it a resumed run has no history",
        )


def check_state(run: RunRecords) -> Iterator[Finding]:
    if run.state == "running":
        yield from _stuck(run)
    elif run.state == "died":
        yield _ended("error", run, "terminated without writing a summary (killed, out of memory or power loss)", "died")
    elif run.state == "failed":
        reason = str((run.summary or {}).get("error") or "see its terminal output")
        yield _ended("error", run, f"failed: {reason}", "failed")
    elif run.state == "interrupted":
        yield _ended("note", run, "was interrupted", "interrupted")


def _ended(severity: str, run: RunRecords, what: str, state: str) -> Finding:
    planned = run.count("trainer.steps")
    of_all = f" of {planned}" if planned else ""
    after = f"after step {run.last_step}{of_all}" if run.last_step else "before the first step finished"
    first = "fix the cause, then " if state == "failed" else ""
    memory = "; if it ran out of memory, lower `trainer.max_tokens_per_microbatch`" if state == "died" else ""
    return Finding(
        severity="error" if severity == "error" else "note",
        check="state",
        message=f"the run {what}, {after}",
        remedy=f"{first}run `reasonrl resume {run.path}`{memory}",
        step=run.last_step or None,
    )


def _stuck(run: RunRecords) -> Iterator[Finding]:
    usual = run.curve("time/step_s")
    try:
        silent_s = time.time() - (run.path / METRICS).stat().st_mtime
    except OSError:
        return
    if len(usual) and silent_s > max(STUCK_AT_LEAST_S, STUCK_STEPS * usual.last):
        yield Finding(
            severity="warning",
            check="state",
            message=f"the run is alive but has finished no step for {silent_s / 60:.0f} minutes; "
            f"a step took {usual.last:.1f} s",
            remedy="check its processes: a reward or the rollout backend may hang; stop it with Ctrl-C and resume",
            step=run.last_step,
        )


def check_metrics(run: RunRecords) -> Iterator[Finding]:
    steps = [step for _, step, _ in run.metrics.lines]
    if run.metrics.unreadable:
        yield _of_metrics(f"corrupted lines: {_some(run.metrics.unreadable)}", run.metrics.unreadable[0])
    if twice := sorted({step for step in steps if steps.count(step) > 1} if len(set(steps)) < len(steps) else []):
        yield _of_metrics(f"duplicate steps: {_some(twice)}", twice[0])
    if back := [b for a, b in pairwise(steps) if b < a]:
        yield _of_metrics(f"steps out of order: {_some(back)}", back[0])
    if gaps := _gaps(steps):
        yield _of_metrics(f"missing steps: {_some(gaps)}", gaps[0])
    if run.metrics.is_cut and run.state != "running":
        yield Finding(
            severity="note" if run.state in ("died", "failed") else "warning",
            check="metrics",
            message="the last line of metrics.jsonl is incomplete, as after a crash or on a full disk",
            remedy="readers skip the line; `reasonrl resume` truncates the file to the checkpoint's step",
            step=run.last_step,
        )
    claimed = _steps_claimed(run)
    if run.state != "running" and claimed > run.last_step and METRICS not in run.missing:
        yield _of_metrics(f"summary.json has {claimed} steps, metrics.jsonl ends at {run.last_step}", run.last_step)


def _steps_claimed(run: RunRecords) -> int:
    claimed = (run.summary or {}).get("steps")
    return claimed if isinstance(claimed, int) else 0


def _of_metrics(message: str, step: int) -> Finding:
    return Finding(
        severity="error",
        check="metrics",
        message=message,
        remedy="another process wrote to metrics.jsonl, or the disk failed; do not trust the metrics of these steps",
        step=step,
    )


def _gaps(steps: list[int]) -> list[int]:
    """List missing steps, capped: a corrupted step number must not make a list of billions."""
    missing: list[int] = []
    known = sorted(set(steps))
    for before, after in pairwise([0, *known]):
        missing.extend(range(before + 1, min(after, before + 2 + SHOWN)))
        if len(missing) > SHOWN:
            break
    return missing


def _some(numbers: tuple[int, ...] | list[int]) -> str:
    more = ", ..." if len(numbers) > SHOWN else ""
    return ", ".join(map(str, numbers[:SHOWN])) + more


def check_checkpoints(run: RunRecords) -> Iterator[Finding]:
    intact = [step for step, problem in run.checkpoints.items() if problem is None]
    for step, problem in run.checkpoints.items():
        if problem is not None:
            yield _corrupted(step, problem, intact)
    if run.unfinished_saves and run.state != "running":
        yield Finding(
            severity="note",
            check="checkpoints",
            message=f"left over from an interrupted save: {', '.join(run.unfinished_saves[:SHOWN])}",
            remedy="safe to delete; a resumed run deletes it as well",
        )
    if not run.checkpoints and run.last_step and run.state != "running":
        yield Finding(
            severity="error" if run.state == "completed" else "warning",
            check="checkpoints",
            message=f"no checkpoint after {run.last_step} finished steps",
            remedy="a resumed run starts at step 0; lower `checkpoint.every` to lose less",
            step=run.last_step,
        )


def _corrupted(step: int, problem: str, intact: list[int]) -> Finding:
    if intact:
        remedy = f"do not use this model; `reasonrl resume` continues from step {max(intact)}, which is intact"
    else:
        remedy = "no checkpoint of this run is intact: restore the folder from a backup, or start over"
    return Finding(
        severity="error",
        check="checkpoints",
        message=f"{CHECKPOINTS}/{name_step(step)} is corrupted: {problem}",
        remedy=remedy,
        step=step,
    )

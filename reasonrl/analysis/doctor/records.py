"""Read a run folder, tolerating missing and corrupted files."""

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from reasonrl.analysis.doctor.curve import Curve
from reasonrl.errors import RecipeError
from reasonrl.rundir.folder import is_locked
from reasonrl.rundir.layout import (
    CHECKPOINTS,
    EVALS,
    METRICS,
    RECIPE,
    RUN,
    SUMMARY,
    TRANSCRIPTS,
    eval_dir,
    find_leftovers,
    find_steps,
)
from reasonrl.rundir.manifest import check_manifest
from reasonrl.rundir.reading import read_json, read_lines

TRACES = (METRICS, CHECKPOINTS, TRANSCRIPTS, EVALS)
MOST = 10**12  # a larger number is corrupted
MOST_METRICS = 1 << 27  # bytes; they take ten times as much memory
UNREADABLE = (OSError, ValueError, RecursionError)  # RecursionError: "[[[[..."


@dataclass(frozen=True, kw_only=True, slots=True)
class MetricsFile:
    """``lines``: line number, step and metrics of every readable line of metrics.jsonl, in file order."""

    lines: tuple[tuple[int, int, Mapping[str, object]], ...] = ()
    unreadable: tuple[int, ...] = ()
    is_cut: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class RunRecords:
    """Everything the checks read.

    ``is_locked`` is None if unknown. ``checkpoints`` maps steps to what is wrong with their folder, or None.
    ``sampled_by`` maps a few steps to the policy versions in their transcripts. ``problems`` lists unreadable files.
    """

    path: Path
    manifest: Mapping[str, object]
    summary: Mapping[str, object] | None
    metrics: MetricsFile
    first_evaluation: Mapping[str, object]
    checkpoints: Mapping[int, str | None]
    unfinished_saves: tuple[str, ...]
    sampled_by: Mapping[int, frozenset[int]]
    missing: tuple[str, ...]
    problems: tuple[str, ...]
    is_locked: bool | None

    @property
    def state(self) -> str:
        """``running``, ``died``, ``unknown``, or the outcome in summary.json."""
        if self.is_locked:
            return "running"
        if self.summary is not None:
            return str(self.summary.get("outcome", "unknown"))
        is_damaged = any(problem.startswith("summary.json ") for problem in self.problems)
        return "died" if self.is_locked is False and not is_damaged else "unknown"

    @property
    def last_step(self) -> int:
        """The last step with metrics; 0 before the first."""
        return max((step for _, step, _ in self.metrics.lines), default=0)

    def curve(self, key: str) -> Curve:
        """Return one metric over the steps, without missing and non-finite values."""
        found = ((step, number(values.get(key))) for _, step, values in self.metrics.lines)
        return Curve.of((step, value) for step, value in found if value is not None)

    @property
    def measured(self) -> set[str]:
        """Every key of metrics.jsonl."""
        return {key for _, _, values in self.metrics.lines for key in values}

    def recorded(self, dotted: str) -> object:
        """Return the value at a dotted key of run.json; None if there is none."""
        value: object = self.manifest
        for part in dotted.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        return value

    def setting(self, dotted: str) -> object:
        """Return a value of the recipe, such as ``algorithm.kl``; None if there is none."""
        return self.recorded(f"recipe.{dotted}")

    def count(self, dotted: str) -> int | None:
        """Return a positive integer of the recipe, such as ``trainer.steps``; None if there is none."""
        value = self.setting(dotted)
        return value if isinstance(value, int) and not isinstance(value, bool) and 0 < value < MOST else None


def number(value: object) -> float | None:
    """Return ``value`` as a finite float, or None."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:  # JSON may hold an integer of 400 digits
        return None


def read_run(run_dir: str | Path, *, deep: bool = True, is_over: bool = False) -> RunRecords:
    """Read a run folder.

    Args:
        deep: hash every file of its checkpoints; else compare sizes only.
        is_over: the caller holds the lock of a run that has ended.

    Raises:
        RecipeError: If it is not a run folder.
    """
    path = Path(run_dir)
    problems: list[str] = []
    manifest = _read_manifest(path, problems)
    summary = _read_object(path / SUMMARY, problems)
    return RunRecords(
        path=path,
        manifest=manifest,
        summary=summary,
        metrics=read_metrics(path / METRICS, problems),
        first_evaluation=_read_object(eval_dir(path, 0) / SUMMARY, problems) or {},
        checkpoints=_checkpoints(path / CHECKPOINTS, deep=deep),
        unfinished_saves=tuple(p.name for p in find_leftovers(list_entries(path / CHECKPOINTS))),
        sampled_by=_sampled_by(path / TRANSCRIPTS),
        missing=tuple(name for name in (RECIPE, METRICS) if not (path / name).is_file()),
        problems=tuple(problems),
        is_locked=False if is_over else is_locked(path),
    )


def _checkpoints(folder: Path, *, deep: bool) -> dict[int, str | None]:
    found = {step: (entry, check_manifest(entry, deep=deep)) for step, entry in find_steps(list_entries(folder))}
    # A live run deletes old checkpoints while we read.
    return {step: problem for step, (entry, problem) in found.items() if entry.exists()}


def _read_manifest(path: Path, problems: list[str]) -> Mapping[str, object]:
    """Read ``run.json``, which marks a run folder. If it is corrupted, the other files decide."""
    if not os.path.isdir(path):
        what = "it is a file" if os.path.exists(path) else "it does not exist"
        raise RecipeError(f"{path} is not a run folder: {what}")
    if not os.access(path, os.R_OK | os.X_OK):
        raise RecipeError(f"{path} cannot be read: permission denied")
    manifest = _read_object(path / RUN, problems)
    if manifest is not None and "reasonrl" in manifest:
        return manifest
    if manifest is None and problems and any((path / name).exists() for name in TRACES):
        return {}
    if manifest is None and not problems:
        raise RecipeError(f"{path} is not a run folder (no run.json)")
    raise RecipeError(f"{path} is not a run folder (its run.json was not written by reasonrl)")


def _read_object(file: Path, problems: list[str]) -> Mapping[str, object] | None:
    """Read a JSON object; None if the file is missing or unreadable."""
    if not os.path.lexists(file):
        return None
    where = f"{file.parent.name}/{file.name}" if find_steps([file.parent]) else file.name
    if not file.is_file():
        problems.append(f"{where} is not a file")
        return None
    try:
        data = read_json(file)
    except UNREADABLE as err:
        reason = (err.strerror or str(err)) if isinstance(err, OSError) else "not valid JSON, corrupted or truncated"
        problems.append(f"{where} cannot be read: {reason}")
        return None
    if not isinstance(data, dict):
        problems.append(f"{where} does not hold a JSON object")
        return None
    return data


def read_metrics(file: Path, problems: list[str]) -> MetricsFile:
    """Read ``metrics.jsonl``. What is wrong with the whole file is added to ``problems``."""
    if not file.is_file():
        return MetricsFile()
    lines, unreadable, is_cut = [], [], False
    try:
        every = 1 + file.stat().st_size // MOST_METRICS
        for place, record, is_torn in read_lines(file):
            is_cut = is_cut or is_torn
            if place % every or is_torn:
                continue
            if (step := _step_of(record)) is None or record is None:
                unreadable.append(place)
            else:
                lines.append((place, step, record))
    except OSError as err:
        problems.append(f"metrics.jsonl cannot be read: {err.strerror or err}")
        return MetricsFile()
    if every > 1:
        problems.append(f"metrics.jsonl has over {MOST_METRICS >> 20} MiB: one of {every} lines was read")
    return MetricsFile(lines=tuple(lines), unreadable=tuple(unreadable), is_cut=is_cut)


def _step_of(record: Mapping[str, object] | None) -> int | None:
    step = record.get("step") if record is not None else None
    return step if isinstance(step, int) and not isinstance(step, bool) and 0 <= step < 10**18 else None


def _sampled_by(folder: Path) -> dict[int, frozenset[int]]:
    """Read the policy versions in the transcripts of the first, the middle and the last step."""
    files = find_steps(list_entries(folder), ".jsonl")
    chosen = {index: files[index] for index in (0, len(files) // 2, len(files) - 1)} if files else {}
    return {step: versions for step, file in chosen.values() if (versions := _versions(file))}


def _versions(file: Path) -> frozenset[int]:
    try:
        records = [record for _, record, _ in read_lines(file) if record is not None]
    except UNREADABLE:  # deleted by a resumed run, or no file
        return frozenset()
    versions = (record.get("policy_version") for record in records)
    return frozenset(v for v in versions if isinstance(v, int))


def list_entries(folder: Path) -> list[Path]:
    """List a folder in order; empty if it is missing or unreadable."""
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []

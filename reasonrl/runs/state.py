"""The state of a run besides its tensors: ``trainer_state.json``."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, TypedDict

from reasonrl.contracts.data import ScoredGroup
from reasonrl.errors import CheckpointError, ReasonRLError, describe
from reasonrl.rundir import files
from reasonrl.rundir.layout import CARRIED, PENDING, TRAINER_STATE, find_steps, name_step
from reasonrl.rundir.reading import read_object
from reasonrl.runs.carried import read_groups, write_groups
from reasonrl.text import list_some

SCHEMA = 2
_GROUPS = {"carried": CARRIED, "pending": PENDING}
"""Fields of a state that have a file of their own."""


class Headline(TypedDict, total=False):
    """The first suite's figures, with all suites below ``suites``; of the best saved step, the first three alone."""

    step: int
    suite: str
    accuracy: float
    ci95: list[float]
    format: float
    length_tokens: float
    problems: int
    suites: Mapping[str, Mapping[str, object]]


class Records(TypedDict, total=False):
    """Headlines of the first and the last evaluation, bytes of metrics.jsonl, seconds so far, the best step."""

    first: Headline
    last: Headline
    metrics_bytes: int
    wall_s: float
    best: Headline | None


class Identity(TypedDict, total=False):
    """What must not change between a run and its continuation: see ``identity.py``."""

    recipe: Mapping[str, object]
    plugins: Mapping[str, str]
    tokenizer: Mapping[str, str]
    data: Mapping[str, str]


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainState:
    """The state at a step boundary: ``step`` steps are finished, and nothing of the next one has happened."""

    step: int = 0
    progress: Mapping[str, object] = field(default_factory=dict)
    """The trainer's own: position in the stream of problems, policy version, controllers of the algorithm."""
    carried: Sequence[ScoredGroup] = ()
    """Sampled in steps up to this one, to be trained on in the next: the lines of ``carried.jsonl``."""
    pending: Sequence[ScoredGroup] = ()
    """The first round of the next step, sampled during the update of this one: the lines of ``pending.jsonl``."""
    is_recorded: bool = True
    """False: a signal interrupted the evaluation of ``step``; it is due again, and ``record`` is not written yet."""
    record: Mapping[str, Mapping[str, float]] | None = None
    """``{"metrics": ..., "timing_s": ...}`` of ``step``, while it is not recorded."""
    unfinished: int = 0
    """Optimizer steps of step + 1 already applied to the tensors, after an error in the middle of its update."""
    records: Records = field(default_factory=Records)
    machine: Mapping[str, object] = field(default_factory=dict)
    """Number of processes and threads, torch version: bit-exact only where they are the same."""
    identity: Identity = field(default_factory=Identity)

    def write(self, folder: Path) -> None:
        """As ``trainer_state.json`` of a checkpoint, with files of their own for groups."""
        data = {"schema": SCHEMA, **asdict(replace(self, carried=(), pending=()))}
        for name, file in _GROUPS.items():
            del data[name]
            if groups := getattr(self, name):
                write_groups(folder / file, groups)
        files.write_text(folder / TRAINER_STATE, json.dumps(data, indent=2, ensure_ascii=False) + "\n")


@contextmanager
def explained_content(folder: Path) -> Iterator[None]:
    """Explain what goes wrong inside, where the content of a verified checkpoint is used: nothing says that it fits.

    Raises:
        CheckpointError: for what missing keys, wrong types and impossible values raise.
    """
    try:
        yield
    except ReasonRLError:
        raise
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as err:
        raise CheckpointError(
            f"{folder}: does not hold what this version saves: {describe(err)}; resume with the version of "
            "reasonrl that wrote it, or use an earlier checkpoint"
        ) from err


def read_state(folder: Path) -> TrainState:
    """The state of a verified checkpoint.

    Raises:
        CheckpointError: if there is none, or another version of reasonrl wrote it.
    """
    path = folder / TRAINER_STATE
    try:
        data = read_object(path)
        schema = data.pop("schema", None)
    except (OSError, ValueError) as err:
        raise CheckpointError(f"{path}: cannot be read: {err}; use an earlier checkpoint") from err
    extra = data.keys() - ({f.name for f in fields(TrainState)} - _GROUPS.keys())
    if schema != SCHEMA or extra:
        found = f"schema {schema}" if schema != SCHEMA else f"unknown keys: {list_some(sorted(extra))}"
        raise CheckpointError(
            f"{path}: has {found}, expected schema {SCHEMA}; resume with the version of reasonrl that wrote it"
        )
    if wrong := _find_wrong(data, folder):
        raise CheckpointError(f"{path}: {wrong}; use an earlier checkpoint")
    data |= {name: read_groups(folder / file) for name, file in _GROUPS.items()}
    return TrainState(**data)


_TYPES: dict[str, Any] = {"step": int, "progress": dict, "is_recorded": bool, "record": dict | None, "unfinished": int}
_TYPES |= {"records": dict, "machine": dict, "identity": dict}
_RECORD_TYPES: dict[str, Any] = {
    "first": dict,
    "last": dict,
    "metrics_bytes": int,
    "wall_s": int | float,
    "best": dict | None,
}


def _find_wrong(data: Mapping[str, Any], folder: Path) -> str:
    """What a damaged or foreign file says that no run writes; empty if nothing."""
    for found, expected, at in ((data, _TYPES, ""), (data.get("records"), _RECORD_TYPES, "records.")):
        for name, kind in expected.items():
            if not isinstance(found, Mapping) or not isinstance(found.get(name), kind):
                return f"{at}{name} is missing or of a wrong type"
    if (
        (find_steps([folder]) and name_step(data["step"]) != folder.name)
        or data["records"]["metrics_bytes"] < 0
        or data["unfinished"] < 0
    ):
        return f"it is the state of step {data['step']}, or has a negative count"
    best = data["records"]["best"]
    is_right = best is None or (isinstance(best.get("step"), int) and isinstance(best.get("accuracy"), int | float))
    return "" if is_right else "records.best has no step or accuracy"

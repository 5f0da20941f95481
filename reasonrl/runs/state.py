"""The state of a run besides its tensors: ``trainer_state.json``."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import TypedDict

from reasonrl.contracts.data import ScoredGroup
from reasonrl.errors import CheckpointError
from reasonrl.rundir import files
from reasonrl.rundir.layout import CARRIED, TRAINER_STATE
from reasonrl.runs.carried import read_groups, write_groups

SCHEMA = 2


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


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainState:
    """The state at a step boundary: ``step`` steps are finished, and nothing of the next one has happened."""

    step: int = 0
    progress: Mapping[str, object] = field(default_factory=dict)
    """The trainer's own: position in the stream of problems, policy version, controllers of the algorithm."""
    carried: Sequence[ScoredGroup] = ()
    """Sampled in steps up to this one, to be trained on in the next: the lines of ``carried.jsonl``."""
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
        """As ``trainer_state.json`` of a checkpoint, and ``carried.jsonl`` if there is anything to carry."""
        data = {"schema": SCHEMA, **asdict(replace(self, carried=()))}
        del data["carried"]
        if self.carried:
            write_groups(folder / CARRIED, self.carried)
        files.write_text(folder / TRAINER_STATE, json.dumps(data, indent=2, ensure_ascii=False) + "\n")


def read_state(folder: Path) -> TrainState:
    """The state of a verified checkpoint.

    Raises:
        CheckpointError: if there is none, or another version of reasonrl wrote it.
    """
    path = folder / TRAINER_STATE
    try:
        data = json.loads(path.read_bytes())
        schema = data.pop("schema", None)
    except (OSError, ValueError, AttributeError) as err:
        raise CheckpointError(f"{path}: cannot be read: {err}") from err
    if schema != SCHEMA or not data.keys() <= {f.name for f in fields(TrainState)}:
        raise CheckpointError(
            f"{path}: has schema {schema}, expected {SCHEMA}; resume with the version of reasonrl that wrote it"
        )
    return TrainState(**data, carried=read_groups(folder / CARRIED))

"""How a run ended."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ALREADY_DONE = "already completed"
"""The outcome of resuming a run that had done all its steps: nothing happened."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunResult:
    """How a run ended. ``summary`` is what ``summary.json`` holds; paths are None on ranks other than 0."""

    outcome: str
    run_dir: Path | None
    model_path: Path | None
    summary: Mapping[str, Any]
    note: str = ""
    """Of a run that was finished before: what there is of it, and how it can go on."""

"""The result of a run."""

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
    """For a run that had already finished: what is left of it, and how to continue it."""

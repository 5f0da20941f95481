"""Runs that sample ahead, with the journal of their engine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

STEPS = 5
OPTIMIZER_STEPS = 2
"""Minibatches of a step."""


def sections(folder: Path, **changes: Any) -> dict[str, Any]:
    """A GRPO run that samples ahead and writes a journal of its engine into ``folder``, which is made."""
    folder.mkdir(exist_ok=True)
    trainer = {"steps": STEPS, "prompts_per_step": 4, "minibatches": OPTIMIZER_STEPS, "max_staleness": 1}
    return {
        "algorithm": {"name": "grpo"},
        "critic": None,
        "rollout_backend": {"name": "stub", "journal": str(folder / "journal"), **changes.pop("stub", {})},
        "rollout_correction": {},
        "trainer": {**trainer, **changes.pop("trainer", {})},
        **changes,
    }


def events(folder: Path, *kinds: str, rank: int = 0) -> list[dict[str, Any]]:
    lines = map(json.loads, (folder / f"journal.{rank}").read_text().splitlines())
    return [line for line in lines if not kinds or line["event"] in kinds]

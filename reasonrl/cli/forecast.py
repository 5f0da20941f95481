"""What a run is expected to need, for its header: the summary of ``reasonrl plan`` for this machine."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from reasonrl.errors import ReasonRLError

if TYPE_CHECKING:
    from reasonrl.observability.reporter import Lines
    from reasonrl.plugins import Plugins
    from reasonrl.recipe.resolved import AnyResolved

SMALL_BYTES = 64 << 20
"""Weights of less are not planned for on a CPU: the plan would take longer than it is worth."""


def forecast(resolved: AnyResolved, plugins: Plugins) -> Lines:
    """Memory and time for the header; nothing for a small model on a CPU. A run is never refused because of it."""
    import torch

    on_gpu = torch.cuda.is_available() and resolved.recipe.device in ("auto", "cuda")
    if not (on_gpu or is_large(resolved)):
        return ()
    from reasonrl.planning.here import find_own
    from reasonrl.planning.plan import make_plan
    from reasonrl.planning.text import forecast_lines

    count = int(os.environ.get("WORLD_SIZE", "1"))
    sharding = resolved.recipe.model.sharding
    try:
        plan = make_plan(resolved, plugins, find_own(count, sharding, on_gpu=on_gpu))
    except ReasonRLError as error:
        return (("expected", f"unknown: {error}"),)
    return tuple(forecast_lines(plan))


def is_large(resolved: AnyResolved) -> bool:
    """Whether the model's files are large, or on the hub."""
    folder = Path(resolved.model_path)
    if not folder.is_dir():
        return True
    return sum(file.stat().st_size for file in folder.glob("*.safetensors")) >= SMALL_BYTES

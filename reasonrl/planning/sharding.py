"""From the memory of one process to that of one of several, by rule. Torch-free."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from reasonrl.planning.dry_run import DryRunResult

Sharding = Literal["none", "fsdp"]

SHARDED = ("weights", "critic", "reference", "gradients", "optimizer")
GATHERED_LAYERS = 2
"""FSDP2 computes on one layer and gathers the next."""


def shard(
    parts: Mapping[str, int], counted: DryRunResult, *, gpus: int, sharding: Sharding, gathers: int = 0
) -> dict[str, int]:
    """Bytes by part on one of ``gpus``.

    DDP keeps everything on each GPU and adds its buckets, a second copy of the gradients. FSDP2 divides weights,
    gradients and the optimizer's states, and gathers two layers at a time with their gradients, embeddings and head all
    the time. ``gathers``: bytes of the model, if the stage gathers all of its layers at once.
    """
    if gpus == 1:
        return dict(parts)
    if sharding == "none":
        return {**parts, "DDP buckets": 4 * counted.trained}
    kept = {part: -(-size // gpus) if part in SHARDED else size for part, size in parts.items()}
    kept.pop("cast weights", None)
    busy = "activations" in parts or "KV cache" in parts
    two_layers = 2 * GATHERED_LAYERS * counted.largest_layer + counted.outside_layers
    return {**kept, "gathered layers": (gathers or two_layers) if busy else 0}

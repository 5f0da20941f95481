"""The device to plan for: the named GPU, or what this machine has."""

from __future__ import annotations

from dataclasses import replace

import torch

from reasonrl.errors import RecipeError
from reasonrl.planning.gpus import KNOWN, Gpu, find_gpu
from reasonrl.planning.plan import GIB, Target
from reasonrl.planning.sharding import Sharding


def find_target(gpu: Gpu | None, count: int, sharding: Sharding) -> Target:
    """``count`` of ``gpu``; without one, this machine's GPU or else its CPU."""
    found = gpu or _own_gpu()
    if found is None and count > 1:
        raise RecipeError("--gpus needs --gpu: torch sees no GPU on this machine")
    return _target(found, count, sharding)


def find_own(count: int, sharding: Sharding, *, on_gpu: bool) -> Target:
    """This machine's GPUs or its CPU, for ``count`` processes."""
    return _target(_own_gpu() if on_gpu else None, count, sharding)


def _target(gpu: Gpu | None, count: int, sharding: Sharding) -> Target:
    if gpu is not None:
        return Target(gpu, gpu.gib, count, sharding)
    import psutil

    return Target(None, psutil.virtual_memory().total / GIB / count, count)


def _own_gpu() -> Gpu | None:
    if not torch.cuda.is_available():
        return None
    seen = torch.cuda.get_device_properties(0)
    gib = seen.total_memory / GIB
    named = [known for known in KNOWN if known.name.split("-")[0].lower() in seen.name.lower()]
    closest = min(named, key=lambda known: abs(known.gib - gib), default=find_gpu(f"{gib:.1f}"))
    return replace(closest, name=seen.name, gib=gib)

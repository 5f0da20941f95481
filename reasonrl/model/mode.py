"""The state that a forward pass finds: train or eval mode, and torch's own random generators."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

CPU = torch.device("cpu")


@contextmanager
def in_mode(module: Any, *, training: bool) -> Iterator[None]:
    """Put ``module`` into train or eval mode, and back afterward.

    transformers recomputes activations in train mode only, and adapter dropout is active there. Everything that
    needs gradients therefore runs in train mode; sampling, evaluation and reference passes run in eval mode.
    """
    before = module.training
    module.train(training)
    try:
        yield
    finally:
        module.train(before)


@contextmanager
def seeded(seed: int, device: torch.device = CPU) -> Iterator[None]:
    """Seed the generators of the CPU and of ``device``; on CPU and CUDA they are put back afterward."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.default_generator.manual_seed(seed % (1 << 63))
        if device.type != "cpu":
            getattr(torch, device.type).manual_seed(seed % (1 << 63))
        yield

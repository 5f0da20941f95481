"""Context managers for train/eval mode and torch's random generators."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from transformers import PreTrainedModel

CPU = torch.device("cpu")


@contextmanager
def in_mode(module: nn.Module, *, training: bool) -> Iterator[None]:
    """Put ``module`` into train or eval mode and restore it afterward.

    transformers checkpoints activations only in train mode, and adapter dropout is active there. So everything that
    needs gradients runs in train mode; sampling, evaluation and reference passes run in eval mode.
    """
    before = module.training
    module.train(training)
    try:
        yield
    finally:
        module.train(before)


@contextmanager
def plain_attention(network: "PreTrainedModel") -> Iterator[None]:
    """Compute attention in plain torch inside: FlashAttention runs on a GPU and in 16 bits only."""
    config, given = network.config, network.config._attn_implementation
    if given != "sdpa":
        config._attn_implementation = "eager"
    try:
        yield
    finally:
        config._attn_implementation = given


@contextmanager
def seeded(seed: int, device: torch.device = CPU) -> Iterator[None]:
    """Seed the generators of the CPU and of ``device``; on CPU and CUDA, restore them afterward."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.default_generator.manual_seed(seed % (1 << 63))
        if device.type != "cpu":
            getattr(torch, device.type).manual_seed(seed % (1 << 63))
        yield

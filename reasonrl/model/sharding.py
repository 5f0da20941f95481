"""Shard a policy over the processes of a run: FSDP2 (``torch.distributed.fsdp.fully_shard``), a unit per layer.

Each process keeps its share of the weights, gradients and optimizer states. A forward or backward pass gathers one
layer at a time; embeddings, head and critic head form the last unit.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard

from reasonrl.errors import RecipeError
from reasonrl.model.policy import PolicyModule


def find_layers(module: nn.Module) -> list[nn.Module]:
    """The layers of the model and of a critic's own trunk, in order.

    Raises:
        RecipeError: if the architecture has none that transformers marks as such.
    """
    from transformers.modeling_layers import GradientCheckpointingLayer

    layers: list[nn.Module] = [part for part in module.modules() if isinstance(part, GradientCheckpointingLayer)]
    if not layers:
        raise RecipeError(
            "model.sharding: transformers marks no layers in this architecture that could be sharded one by one; set "
            "it to none"
        )
    return layers


def shard_policy(module: nn.Module, device: torch.device, precision: torch.dtype) -> None:
    """Shard ``module`` in place over all processes and move it to ``device``; every process calls it.

    Args:
        module: whole, with the same weights on every process. A frozen one is gathered for every forward pass.
        device: where the shards are kept, a kind of device with a process group.
        precision: that of forward passes under autocast. Below float32, layers are gathered in it, which autocast would
            cast them to anyway; gradients are summed in float32.
    """
    low = precision if torch.finfo(precision).bits < 32 else None
    policy = MixedPrecisionPolicy(param_dtype=low, reduce_dtype=low and torch.float32, cast_forward_inputs=False)
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    for layer in reversed(find_layers(module)):  # inner ones first
        fully_shard(layer, mesh=mesh, mp_policy=policy)
    is_trained = any(parameter.requires_grad for parameter in module.parameters())
    fully_shard(module, mesh=mesh, reshard_after_forward=None if is_trained else True)
    with torch.autocast(device.type, low, enabled=low is not None):
        _initialize(module, device)


def is_sharded(module: nn.Module) -> bool:
    """Whether ``shard_policy`` has sharded ``module``."""
    return isinstance(module, FSDPModule)


@contextmanager
def gathered(module: PolicyModule) -> Iterator[None]:
    """Keep the model of a sharded ``PolicyModule`` whole inside, so that any part of it can be called, by any process.

    Every process enters and leaves it, and trains nothing inside. The layers of a critic stay sharded.
    """
    root: nn.Module = module
    units = [part for part in (root, *module.model.modules()) if isinstance(part, FSDPModule)]
    for unit in units:
        unit.unshard()
        unit.set_reshard_after_forward(False, recurse=False)
    try:
        yield
    finally:
        for unit in units:
            unit.set_reshard_after_forward(unit is not root, recurse=False)
            unit.reshard()


@torch.no_grad()
def _initialize(module: nn.Module, device: torch.device) -> None:
    """FSDP takes the first module that is called as the root, so call it before a backend calls a part of it."""
    ids = torch.zeros((1, 2), dtype=torch.int64, device=device)
    module(ids, ids == 0, ids == 0)
    assert isinstance(module, FSDPModule)
    module.reshard()  # the root stays gathered after a forward pass, for the backward pass

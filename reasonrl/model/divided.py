"""Tensors that are divided over the processes by their first dimension, as FSDP2 divides parameters.

A process may hold one whole for a moment, never all of them. What is not divided is whole already.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor, Shard


def is_divided(tensor: Tensor) -> bool:
    """Whether each process holds a part of ``tensor`` only."""
    return isinstance(tensor, DTensor)


def gather(tensor: Tensor) -> Tensor:
    """The whole tensor, on every process; every process calls it."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def gather_on(tensor: Tensor, rank: int) -> Tensor | None:
    """The whole tensor on one process, None on the others; every process calls it.

    Sent are the parts alone, to that process alone.
    """
    if not isinstance(tensor, DTensor):
        return tensor if not dist.is_initialized() or dist.get_rank() == rank else None
    mesh = tensor.device_mesh
    own = tensor.redistribute(placements=[Shard(0)]).to_local()
    sent = own.new_zeros(_rows_each(tensor), *tensor.shape[1:])  # a collective takes parts of one size
    sent[: len(own)] = own
    parts = [torch.empty_like(sent) for _ in range(mesh.size())] if mesh.get_local_rank() == rank else None
    dist.gather(sent, parts, group_dst=rank, group=mesh.get_group())
    return torch.cat(parts)[: tensor.shape[0]] if parts else None


def own_rows(tensor: Tensor) -> slice | None:
    """The part of the first dimension that this process holds; None: all of the tensor."""
    if not isinstance(tensor, DTensor):
        return None
    start = min(tensor.device_mesh.get_local_rank() * _rows_each(tensor), tensor.shape[0])
    return slice(start, start + tensor.to_local().shape[0])


def divide_like(part: Tensor, whole: Tensor) -> Tensor:
    """A divided tensor of this process's ``part``, divided as ``whole`` is; ``part`` itself if that is not."""
    if not isinstance(whole, DTensor):
        return part
    placed = part.to(whole.to_local().device)
    return DTensor.from_local(
        placed, whole.device_mesh, whole.placements, run_check=False, shape=whole.shape, stride=whole.stride()
    )


def _rows_each(tensor: DTensor) -> int:
    return -(-tensor.shape[0] // tensor.device_mesh.size())

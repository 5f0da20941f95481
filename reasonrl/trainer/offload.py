"""Keep the reference's weights and the optimizer's states in host memory while nothing computes with them."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

REFERENCE, OPTIMIZER = "reference", "optimizer"


class Offload:
    """What is in ``names`` is on ``device`` inside ``loaded`` and in host memory elsewhere.

    Without a device beside the host nothing moves.
    """

    def __init__(
        self, names: Collection[str], device: torch.device, optimizer: Optimizer, reference: nn.Module | None
    ) -> None:
        self._names = names if device.type != "cpu" else ()
        self._device = device
        self._optimizer = optimizer
        self._weights = _Weights(reference) if reference is not None and REFERENCE in self._names else None
        self._host: dict[tuple[int, str], Tensor] = {}

    def park(self) -> None:
        """Move everything to the host. Also to be called after a resume, which fills the optimizer's states."""
        for name in self._names:
            self._move(name, to_host=True)

    @contextmanager
    def loaded(self, name: str) -> Iterator[None]:
        """Have ``name`` on the device."""
        if name not in self._names:
            yield
            return
        self._move(name, to_host=False)
        try:
            yield
        finally:
            self._move(name, to_host=True)

    def _move(self, name: str, *, to_host: bool) -> None:
        if name == REFERENCE:
            if self._weights is not None:
                self._weights.place(None if to_host else self._device)
            return
        for parameter, state in self._optimizer.state.items():
            for key, value in state.items():
                if isinstance(value, Tensor) and value.ndim > 0 and (value.device.type == "cpu") != to_host:
                    moved = self._to_host(value, (id(parameter), key)) if to_host else value.to(self._device)
                    state[key] = moved

    def _to_host(self, tensor: Tensor, key: tuple[int, str]) -> Tensor:
        """Copy into memory that is taken once, since it is slow to take."""
        if key not in self._host:
            self._host[key] = _host_copy(tensor)
        else:
            self._host[key].copy_(tensor)
        return self._host[key]


class _Weights:
    """Frozen weights: the copy on the host is made once, the one on the device is thrown away."""

    def __init__(self, module: nn.Module) -> None:
        self._owners: dict[int, list[tuple[Any, str]]] = {}
        parameters = {}
        for owner in module.modules():
            for name, parameter in owner.named_parameters(recurse=False):
                parameters[id(parameter)] = parameter
                self._owners.setdefault(id(parameter), []).append((owner, name))  # tied ones have several
        self._host = {key: _host_copy(parameter.detach()) for key, parameter in parameters.items()}

    def place(self, device: torch.device | None) -> None:
        """On ``device``, or on the host."""
        for key, host in self._host.items():
            placed = nn.Parameter(host if device is None else host.to(device), requires_grad=False)
            for owner, name in self._owners[key]:
                owner._parameters[name] = placed


def _host_copy(tensor: Tensor) -> Tensor:
    copied = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=tensor.device.type == "cuda")
    return copied.copy_(tensor)

"""What the trainer asks of accelerate, for a dry run in this process: no process group, no global state."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn


class Alone:
    """One process that computes in ``precision`` on fake tensors; they say to be on the CPU, whatever the device."""

    num_processes, process_index, is_main_process = 1, 0, True
    device = torch.device("cpu")

    def __init__(self, precision: torch.dtype) -> None:
        self.precision = precision

    def autocast(self) -> AbstractContextManager[object]:
        """As accelerate wraps forward passes."""
        if self.precision == torch.float32:
            return nullcontext()
        return torch.autocast("cpu", dtype=self.precision)

    def no_sync(self, _module: nn.Module) -> AbstractContextManager[object]:
        """Nothing to hold back."""
        return nullcontext()

    def backward(self, loss: Tensor) -> None:
        """Gradients of one process."""
        loss.backward()

    def prepare(self, policy: nn.Module) -> nn.Module:
        """A module whose forward passes run in the precision."""
        return _Entered(policy, self)


class _Entered(nn.Module):
    def __init__(self, module: nn.Module, alone: Alone) -> None:
        super().__init__()
        self.module = module
        self._alone = (alone,)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        with self._alone[0].autocast():
            return self.module(*args, **kwargs)

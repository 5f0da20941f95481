"""A CPU without float64, like Apple's GPUs, to find code that needs float64 on the device."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

MESSAGE = "Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't support float64."


class NoFloat64(TorchDispatchMode):
    """Make every operation that creates a float64 tensor raise TypeError: ``with NoFloat64():``.

    The mode cannot tell the host from the device, so float64 tensors on the host fail too; numpy arrays and Python
    numbers are free.
    """

    def __torch_dispatch__(
        self,
        func: Callable[..., object],
        types: Sequence[type],
        args: Sequence[object] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        output = func(*args, **(kwargs or {}))
        if any(isinstance(leaf, torch.Tensor) and leaf.dtype == torch.float64 for leaf in tree_leaves(output)):
            raise TypeError(f"{MESSAGE} Please use float32 instead. ({func})")
        return output

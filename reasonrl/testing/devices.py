"""A GPU made of the CPU, with a GPU's rules: find what works on a CPU only, or makes a GPU wait, without a GPU.

Tensors on ``DEVICE`` keep their numbers in host memory and every operation computes on the CPU, so results are real.
What a GPU refuses fails here too: operations that mix devices, and float64, which Apple's GPUs lack. Whatever makes the
host wait for the GPU is counted under the function that does it, and refused where it is not allowed.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from types import FrameType
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing

HOST = torch.device("cpu")
DEVICE = torch.device("meta", 0)
"""The one kind of device that torch has everywhere. The number tells it from the ``meta`` that libraries use."""

aten = torch.ops.aten
COPIES = {aten.copy_, aten._to_copy}
WAITING = {
    aten._local_scalar_dense,  # item(), float(), bool(), `if`
    aten._unique2,
    aten.bincount,
    aten.equal,
    aten.is_nonzero,
    aten.masked_select,
    aten.nonzero,
    aten.repeat_interleave,
    aten.unique_consecutive,
    aten.unique_dim,
}
"""The host needs their result, or its shape."""
INDEXING = {aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_}
TORCH = str(Path(torch.__file__).parent)


class HiddenSyncError(RuntimeError):
    """The host waits for the GPU where it should not."""


class FakeGPUTensor(Tensor):
    """A tensor on ``DEVICE``, whose numbers are in ``host``."""

    host: Tensor

    @staticmethod
    def __new__(cls, host: Tensor) -> FakeGPUTensor:
        return Tensor._make_wrapper_subclass(
            cls,
            host.shape,
            strides=host.stride(),
            storage_offset=host.storage_offset(),
            dtype=host.dtype,
            device=DEVICE,
        )

    def __init__(self, host: Tensor) -> None:
        self.host = host

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        return f"FakeGPUTensor({self.host!r})"

    def __tensor_flatten__(self) -> tuple[list[str], None]:
        """Make ``nn.Module.to`` swap parameters in place, which keeps tied ones tied."""
        return ["host"], None

    @staticmethod
    def __tensor_unflatten__(inner: Mapping[str, Tensor], *_: object) -> FakeGPUTensor:
        return FakeGPUTensor(inner["host"])

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        raise RuntimeError(f"{func}: a tensor of FakeGPU is used outside of its `with` block")


class FakeGPU(TorchDispatchMode):
    """A GPU to put tensors on: ``with FakeGPU() as gpu: torch.ones(2, device=gpu.device)``.

    Args:
        allowed: the functions that may make the host wait, under the names of ``waits``; None allows all.
    """

    device = DEVICE

    def __init__(self, allowed: Container[str] | None = None) -> None:
        super().__init__()
        self.waits: Counter[str] = Counter()
        """How often the host waited, by function: ``reasonrl.trainer.optim:clip``."""
        self._allowed = allowed
        self._constructors = _Constructors()

    def __enter__(self) -> FakeGPU:
        self._constructors.__enter__()
        return super().__enter__()

    def __exit__(self, *exc: Any) -> None:
        super().__exit__(*exc)
        self._constructors.__exit__(*exc)

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        given = kwargs or {}
        tensors: list[Tensor] = []
        on_host = {**_replace(given, _unwrap, tensors), **({"device": HOST} if given.get("device") else {})}
        host_args = _replace(args, _unwrap, tensors)
        is_here = any(isinstance(tensor, FakeGPUTensor) for tensor in tensors)
        if not is_here and given.get("device") != DEVICE:
            return func(*args, **given)
        if func.overloadpacket not in COPIES:
            _check_devices(func, tensors)
        if is_wait(func.overloadpacket, args, given):
            self._wait(func)
        out = func(*host_args, **on_host)
        if not _stays(func.overloadpacket, args, given):
            return args[0] if func.overloadpacket is aten.copy_ else out
        wrapped = _replace(out, lambda tensor: _wrap(func, tensor), [])
        return return_and_correct_aliasing(func, args, given, wrapped) if func._schema.is_mutable else wrapped

    def _wait(self, func: object) -> None:
        place, by = _blame()
        self.waits[place] += 1
        if self._allowed is not None and place not in self._allowed:
            raise HiddenSyncError(f"{place} makes the host wait for the GPU: {func} at {by}")


class _Constructors(TorchFunctionMode):
    """Two functions that know no numbers on ``meta``."""

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        given = kwargs or {}
        if func in (torch.tensor, torch.as_tensor, torch.asarray) and given.get("device") == DEVICE:
            return func(*args, **{**given, "device": HOST}).to(DEVICE)
        if func is Tensor.tolist and isinstance(args[0], FakeGPUTensor):
            return args[0].to(HOST).tolist()
        return func(*args, **given)


class _Module:
    """What ``torch.cuda`` is to CUDA. Memory is not counted."""

    manual_seed = staticmethod(torch.manual_seed)

    @staticmethod
    def synchronize() -> None: ...


@contextmanager
def fake_gpu(allowed: Container[str] | None = None) -> Iterator[FakeGPU]:
    """Let runs compute on a ``FakeGPU``, as if torch had found it."""
    from accelerate import Accelerator

    def autocast(device_type: str, *args: Any, **given: Any) -> AbstractContextManager[object]:
        return nullcontext() if device_type == DEVICE.type else torch.amp.autocast(device_type, *args, **given)

    with (
        mock.patch.object(Accelerator, "device", DEVICE),
        mock.patch.object(torch, "autocast", autocast),
        mock.patch.object(torch, DEVICE.type, _Module, create=True),
        mock.patch("torch.optim.adam._device_dtype_check_for_fused"),
        mock.patch("reasonrl.trainer.peak._OTHER_SIZE", 64),  # a product that keeps a GPU busy takes a CPU seconds
        FakeGPU(allowed) as gpu,
    ):
        yield gpu


def is_wait(packet: Any, args: Sequence[Any], given: Mapping[str, Any]) -> bool:
    """Whether the host waits for the GPU in an operation on its tensors: for a result, a shape, or a copy."""
    if packet in INDEXING:
        masks = [index for index in args[1] if index is not None and index.dtype in (torch.bool, torch.uint8)]
        is_fill = packet is not aten.index and len(masks) == len(args[1]) == 1 and args[2].numel() == 1
        return bool(masks) and not is_fill
    if packet is aten.copy_:
        return isinstance(args[0], FakeGPUTensor) != isinstance(args[1], FakeGPUTensor) and args[1].ndim > 0
    if packet is aten._to_copy:
        return args[0].numel() > 0 and _stays(packet, args, given) != isinstance(args[0], FakeGPUTensor)
    return packet in WAITING


def _stays(packet: Any, args: Sequence[Any], given: Mapping[str, Any]) -> bool:
    """Whether the result is on the device."""
    if given.get("device"):
        return given["device"] == DEVICE
    return packet not in COPIES or isinstance(args[0], FakeGPUTensor)


def _check_devices(func: object, tensors: Sequence[Tensor]) -> None:
    """Refuse a tensor of the host among those of the device; a number, of no dimension, is an operand as on a GPU."""
    if any(tensor.ndim > 0 and not isinstance(tensor, FakeGPUTensor) for tensor in tensors):
        found = ", ".join(f"{tensor.device.type} {list(tensor.shape)}" for tensor in tensors)
        raise RuntimeError(f"Expected all tensors to be on the same device, but {func} found {found}")


def _wrap(func: object, tensor: Tensor) -> Tensor:
    if tensor.dtype == torch.float64:
        raise TypeError(
            "Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't support float64. "
            f"Please use float32 instead. ({func})"
        )
    return FakeGPUTensor(tensor)


def _unwrap(tensor: Tensor) -> Tensor:
    return tensor.host if isinstance(tensor, FakeGPUTensor) else tensor


def _replace(value: Any, change: Callable[[Tensor], Tensor], seen: list[Tensor]) -> Any:
    """Apply ``change`` to the tensors in nested sequences and mappings, and add them to ``seen``."""
    if isinstance(value, Tensor):
        seen.append(value)
        return change(value)
    if isinstance(value, list | tuple):
        return type(value)([_replace(each, change, seen) for each in value])
    if isinstance(value, dict):
        return {key: _replace(each, change, seen) for key, each in value.items()}
    return value


def _blame() -> tuple[str, str]:
    """The function of reasonrl or a plugin that is running, and the line of code outside torch that it is in."""
    frame: FrameType | None = sys._getframe(2)
    line = ""
    while frame is not None:
        name, file = frame.f_globals.get("__name__", ""), frame.f_code.co_filename
        if name != __name__ and not file.startswith(TORCH):
            line = line or f"{file}:{frame.f_lineno}"
            if name.startswith("reasonrl"):
                return f"{name}:{frame.f_code.co_qualname}", line
        frame = frame.f_back
    return "elsewhere", line

"""Follow the memory and the FLOPs of code that runs under fake tensors: shapes and storages without data."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils.flop_counter import flop_registry

ACTIVATIONS, LOGITS, CASTS, CACHE = "activations", "logits", "cast weights", "KV cache"
STATES = ("weights", "critic", "reference")

aten = torch.ops.aten
_DEVICE = torch.ops.prim.device.default
# The CPU's kernel, for which torch has no formula, takes its arguments in the order of the GPU's.
_FLOPS = {
    **flop_registry,
    aten._scaled_dot_product_flash_attention_for_cpu: flop_registry[aten._scaled_dot_product_flash_attention],
    aten._scaled_dot_product_flash_attention_for_cpu_backward: flop_registry[
        aten._scaled_dot_product_flash_attention_backward
    ],
}
_SCALARS = {aten._local_scalar_dense.default, aten.item.default}
_COPIES = {aten._to_copy.default}
_INHERITING = {*_COPIES, aten.cat.default}


@dataclass(slots=True)
class Peak:
    """The largest sum of live storages during a stage, in bytes, by part; and the FLOPs of the stage."""

    total: int = 0
    parts: dict[str, int] = field(default_factory=dict)
    flops: int = 0


class Meter(TorchDispatchMode):
    """Counts the storages that are alive. Use :meth:`fake` as the context.

    Float tensors are fake. Integers, masks and what is computed from real tensors alone stay real, so that code which
    reads its lengths and masks takes the way it takes in a run; a number read from a fake tensor is 1.0, 0 or False.

    Args:
        vocabulary: a new tensor whose last dimension this is counts as logits.
    """

    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        self.vocabulary = vocabulary
        self._mode = FakeTensorMode(allow_non_fake_inputs=True)
        self._parts: dict[int, tuple[str, int]] = {}
        self._live: dict[str, int] = {}
        self._total = 0
        self._default = ACTIVATIONS
        self._stage = Peak()
        self.stages: dict[str, Peak] = {}

    @contextlib.contextmanager
    def fake(self) -> Iterator[None]:
        """Run the body under fake tensors, metered."""
        with self._mode, self:
            yield

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Record the peak of the body as ``name``."""
        outer, self._stage = self._stage, Peak()
        self._see_peak()
        try:
            yield
        finally:
            self.stages[name], self._stage = self._stage, outer

    def live(self) -> dict[str, int]:
        """Bytes of the live storages by part."""
        return {part: size for part, size in self._live.items() if size}

    @contextlib.contextmanager
    def naming(self, part: str) -> Iterator[None]:
        """Count new storages of the body as ``part``."""
        before, self._default = self._default, part
        try:
            yield
        finally:
            self._default = before

    def tag(self, part: str, tensors: Iterable[Tensor | None]) -> None:
        """Count ``tensors`` as ``part`` from here on."""
        for tensor in tensors:
            if tensor is not None:
                self._count(tensor, part)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is _DEVICE:
            return args[0].fake_device
        kwargs = kwargs or {}
        inputs = [*_tensors(args), *_tensors(kwargs.values())]
        if func in _SCALARS and isinstance(inputs[0], FakeTensor):
            return _stand_in(inputs[0].dtype)
        if func is aten.equal.default and any(isinstance(x, FakeTensor) for x in inputs):
            return True
        if func is aten.index.Tensor:
            args = (args[0], [part for index in args[1] for part in _as_integers(index)], *args[2:])
        out = self._run(func, inputs, args, kwargs)
        self._look(func, inputs, args, kwargs, out)
        return out

    def _run(self, func: Any, inputs: list[Tensor], args: Any, kwargs: Any) -> Any:
        if any(isinstance(x, FakeTensor) for x in inputs) or (not inputs and _makes_fake(func, args, kwargs)):
            return func(*args, **kwargs)
        with _disable_current_modes():
            return func(*args, **kwargs)

    def _look(self, func: Any, inputs: list[Tensor], args: Any, kwargs: Any, out: Any) -> None:
        count = _FLOPS.get(getattr(func, "_overloadpacket", None))
        if count is not None:
            self._stage.flops += count(*args, **kwargs, out_val=out)
        part = self._inherited(func, inputs)
        for tensor in _tensors((out,)):
            self._meet(tensor, part)
        self._see_peak()

    def _inherited(self, func: Any, inputs: list[Tensor]) -> str | None:
        """The part of what is made of a weight or of a cache."""
        if self._default != ACTIVATIONS or func not in _INHERITING:
            return None
        made_of = self._parts.get(_key(inputs[0]), ("", 0))[0]
        return CACHE if made_of == CACHE else CASTS if made_of in STATES and func in _COPIES else None

    def _meet(self, tensor: Tensor, part: str | None) -> None:
        if _key(tensor) not in self._parts:
            is_logits = tensor.ndim >= 2 and tensor.shape[-1] == self.vocabulary and tensor.is_floating_point()
            self._count(tensor, part or (LOGITS if is_logits else self._default))

    def _count(self, tensor: Tensor, part: str) -> None:
        storage, key = tensor.untyped_storage(), _key(tensor)
        if key in self._parts:
            old, size = self._parts[key]
            self._live[old] -= size
        else:
            size = storage.nbytes()
            self._total += size
            weakref.finalize(storage, self._forget, key)
        self._parts[key] = (part, size)
        self._live[part] = self._live.get(part, 0) + size

    def _forget(self, key: int) -> None:
        part, size = self._parts.pop(key)
        self._live[part] -= size
        self._total -= size

    def _see_peak(self) -> None:
        if self._total > self._stage.total:
            self._stage.total = self._total
            self._stage.parts = self.live()


def unmetered() -> contextlib.AbstractContextManager[object]:
    """Compute with real tensors alone, inside of :meth:`Meter.fake`."""
    return _disable_current_modes()


def _tensors(values: Iterable[Any]) -> Iterator[Tensor]:
    """Those in nested lists and tuples."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)


def _key(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


def _stand_in(dtype: torch.dtype) -> float | int | bool:
    return False if dtype == torch.bool else 1.0 if dtype.is_floating_point else 0


def _as_integers(index: Any) -> list[Any]:
    """A real mask as the integers that it selects, one tensor per dimension. What a fake one selects is unknown."""
    if not isinstance(index, Tensor) or index.dtype != torch.bool or isinstance(index, FakeTensor):
        return [index]
    with _disable_current_modes():
        return list(index.nonzero(as_tuple=True))


def _makes_fake(func: Any, args: Any, kwargs: Any) -> bool:
    """Whether a new tensor is fake: one of floats, or random."""
    if "rand" in str(func):
        return True
    dtype = kwargs.get("dtype")
    if dtype is not None:
        return bool(dtype.is_floating_point)
    return not any(isinstance(x, int) and not isinstance(x, bool) for x in args)

"""What is replaced during a dry run: what fake tensors cannot do, and what depends on the device they stand for."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

from torch import Tensor, nn

from reasonrl.functional import logprobs
from reasonrl.model import load, lora
from reasonrl.planning import low_memory
from reasonrl.runs import build

CPU_CHUNK_ELEMENTS = 1 << 21
"""8 MiB of float32: few enough chunks to run them all, small beside the logits."""


@contextmanager
def substitutes(*, on_gpu: bool) -> Iterator[None]:
    """Conversions of modules that do not swap tensors, stand-ins for bitsandbytes, and larger chunks of logits."""
    with ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.filterwarnings("ignore", message="Accessing the data pointer of FakeTensor")
        stack.enter_context(_replaced(nn.Module, "_apply", _apply))
        stack.enter_context(_replaced(load, "quantize", low_memory.quantize))
        stack.enter_context(_replaced(lora, "dequantize", low_memory.dequantize))
        stack.enter_context(_replaced(build, "optimizer_class", partial(_optimizer_class, build.optimizer_class)))
        chunk = logprobs.DEVICE_CHUNK_ELEMENTS if on_gpu else CPU_CHUNK_ELEMENTS
        stack.enter_context(_replaced(logprobs, "CPU_CHUNK_ELEMENTS", chunk))
        yield


def _optimizer_class(real: Callable[[str], Any], name: str) -> Any:
    return low_memory.Adam8bit if name == "adamw_8bit" else real(name)


@contextmanager
def _replaced(owner: Any, name: str, value: object) -> Iterator[None]:
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


def _apply(module: nn.Module, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
    """``nn.Module._apply``, which swaps fake tensors and refuses to where something else refers to them."""
    for child in module.children() if recurse else ():
        child._apply(fn)
    for name, parameter in module._parameters.items():
        if parameter is not None and (changed := fn(parameter)) is not parameter:
            module._parameters[name] = nn.Parameter(changed.detach(), requires_grad=parameter.requires_grad)
    for name, buffer in module._buffers.items():
        module._buffers[name] = None if buffer is None else fn(buffer)
    return module

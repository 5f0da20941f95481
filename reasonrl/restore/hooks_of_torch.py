"""Hooks and modes of torch that take part in every operation of the process until something removes them."""

import sys
from collections.abc import Sequence
from copy import copy
from functools import lru_cache
from importlib import import_module
from typing import Any

from reasonrl.restore.process import Setting

HELD_BY = ("torch.nn.modules.module", "torch.optim.optimizer")
"""Modules with a dictionary for each kind of hook that is called for all modules, or all optimizers."""


def hook_settings() -> tuple[Setting, ...]:
    """How to read and write them. Dispatch modes come first: they would take part in the rest."""
    return (
        _stack("the stack of torch dispatch modes", "torch.utils._python_dispatch", "_get_current_dispatch_mode_stack"),
        Setting("saved_tensors_hooks", _read_saved, _set_saved, None),
        *(Setting(f"hooks of {name}", _Held(name).read, _Held(name).write, {}) for name in HELD_BY),
    )


def function_modes() -> Setting:
    """After ``torch.set_default_device``, which is such a mode."""
    return _stack("the stack of torch function modes", "torch.overrides", "_get_current_function_mode_stack")


def _stack(name: str, module: str, reader: str) -> Setting:
    """The modes of one kind, innermost last, as ``module`` keeps them."""
    kept = import_module(module)
    read, pop, push = getattr(kept, reader), kept._pop_mode, kept._push_mode

    def write(modes: Sequence[Any]) -> None:
        for _ in read():
            pop()
        for mode in modes:
            push(mode)

    return Setting(name, read, write, [])


class _Held:
    """The hooks of one module of torch, by the names of its dictionaries; those without one are left out."""

    def __init__(self, module: str) -> None:
        self._kept = vars(sys.modules[module])
        self._names = [name for name in self._kept if name.startswith("_global_")]

    def read(self) -> dict[str, Any]:
        return {name: copy(held) for name in self._names if (held := self._kept[name])}

    def write(self, hooks: dict[str, Any]) -> None:
        for name in self._names:
            if isinstance(self._kept[name], dict):  # which others refer to
                self._kept[name].clear()
                self._kept[name].update(hooks.get(name, {}))
            else:
                self._kept[name] = hooks.get(name)


@lru_cache(maxsize=1)
def _autograd() -> Any:
    """Looked up once: a plugin's code may put another module in torch's place."""
    import torch

    return torch._C._autograd


def _read_saved() -> Any:
    return _autograd()._top_saved_tensors_default_hooks(False)


def _set_saved(hooks: Any) -> None:
    autograd = _autograd()
    while (top := _read_saved()) is not None and top != hooks:
        autograd._pop_saved_tensors_default_hooks()
    if top is None and hooks is not None:
        autograd._push_saved_tensors_default_hooks(*hooks)

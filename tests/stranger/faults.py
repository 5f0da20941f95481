"""Faults for ``test_faults.py``, injected into one command before it begins. Executed by the environment under test."""

import importlib
from dataclasses import MISSING, fields
from typing import Any


def inject(fault: str) -> None:
    """``ignored module:Class.field``, or the name of a function below."""
    name, _, rest = fault.partition(" ")
    faults = {"ignored": ignored, "renamed": renamed, "gpu": gpu, "gpu_fault": gpu_fault}
    faults[name](rest)


def ignored(key: str) -> None:
    """The key is read and checked, and then has its default all the same."""
    module, _, name = key.partition(":")
    owner, _, field_name = name.partition(".")
    cls: Any = getattr(importlib.import_module(module), owner)
    (field,) = [f for f in fields(cls) if f.name == field_name]
    checks = getattr(cls, "__post_init__", lambda self: None)

    def forget(self: Any) -> None:
        checks(self)
        default = field.default if field.default_factory is MISSING else field.default_factory()
        object.__setattr__(self, field_name, default)

    cls.__post_init__ = forget
    if "__post_init__" not in cls.__init__.__code__.co_names:  # dataclass calls it only if it was there
        made = cls.__init__

        def init(self: Any, *args: Any, **kwargs: Any) -> None:
            made(self, *args, **kwargs)
            forget(self)

        cls.__init__ = init


def renamed(_: str) -> None:
    """A library renames the argument that takes the cache, as a minor release of transformers once did."""
    from transformers import LlamaForCausalLM

    forward = LlamaForCausalLM.forward

    def changed(self: Any, *args: Any, state: Any = None, **kwargs: Any) -> Any:
        for old in ("past_key_values", "cache"):
            if kwargs.get(old) is not None:
                raise TypeError(f"LlamaForCausalLM.forward() got an unexpected keyword argument {old!r}")
        return forward(self, *args, **kwargs)

    LlamaForCausalLM.forward = changed


def gpu(_: str) -> None:
    """No fault, but a device with the rules of a GPU."""
    from reasonrl.testing.devices import fake_gpu

    KEPT.append(fake_gpu())
    KEPT[-1].__enter__()


def gpu_fault(kind: str) -> None:
    """On that device, a step of the trainer that computes in ``float64``, or with tensors of the ``host``."""
    import torch

    from reasonrl.trainer import update

    gap = update.measure_rollout_gap
    change = {"float64": lambda x: x.double(), "host": lambda x: x * torch.ones(x.shape)}[kind]
    update.measure_rollout_gap = lambda old, *args: gap(change(old), *args)
    gpu("")


KEPT: list[Any] = []

"""What a plugin registers, checked against the contract."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, get_type_hints

from pluggy import HookImpl, PluginManager

from reasonrl.contracts.specs import (
    REWARD_LIMITS,
    AlgorithmSpec,
    AnySpec,
    ComponentSpec,
    ModelSpec,
    RecipeSpec,
    RewardSpec,
    RolloutBackendSpec,
    TaskSpec,
)
from reasonrl.errors import PluginContractError

REGISTRATION_HOOKS: Mapping[str, type] = {
    "reasonrl_tasks": TaskSpec,
    "reasonrl_rewards": RewardSpec,
    "reasonrl_algorithms": AlgorithmSpec,
    "reasonrl_rollout_backends": RolloutBackendSpec,
    "reasonrl_models": ModelSpec,
    "reasonrl_recipes": RecipeSpec,
}
OBSERVER_HOOKS = ("reasonrl_run_started", "reasonrl_step_finished", "reasonrl_run_finished")


def check_hooks(manager: PluginManager, plugin: object) -> None:
    """Raise PluginContractError or pluggy's error if the plugin's functions are no hooks."""
    manager.check_pending()
    callers = manager.get_hookcallers(plugin) or []
    marked = {caller.name for caller in callers}
    for hook in (*REGISTRATION_HOOKS, *OBSERVER_HOOKS):
        if callable(getattr(plugin, hook, None)) and hook not in marked:
            raise PluginContractError(f"{hook} is not marked with @reasonrl.hookimpl")
    if not callers:
        raise PluginContractError("offers nothing: it has no function marked with @reasonrl.hookimpl")


def call_registration(hook: str, impl: HookImpl, expected: type) -> list[AnySpec]:
    """Call one implementation; a generator is consumed here, inside the caller's try."""
    if impl.wrapper or impl.hookwrapper:
        raise PluginContractError(f"{hook}: hook wrappers are not supported")
    returned = impl.function()
    if not isinstance(returned, Iterable) or isinstance(returned, str):
        raise PluginContractError(
            f"{hook} returned {type(returned).__name__}, expected an iterable of {expected.__name__}"
        )
    specs = list(returned)
    for spec in specs:
        _check_spec(hook, spec, expected)
    return specs


def _is_texts(value: object) -> bool:
    return isinstance(value, tuple | list) and all(isinstance(text, str) for text in value)


def _is_range(value: object) -> bool:
    if not isinstance(value, tuple | list) or len(value) != 2:
        return False
    is_numbers = all(isinstance(end, int | float) and math.isfinite(end) for end in value)
    return is_numbers and value[0] < value[1]


_TYPES: Mapping[str, tuple[Callable[[object], bool], str]] = {
    "summary": (lambda value: isinstance(value, str), "a text"),
    "install": (lambda value: isinstance(value, str), "a text"),
    "papers": (_is_texts, "a tuple of texts"),
    "modules": (_is_texts, "a tuple of texts"),
    "default_rewards": (_is_texts, "a tuple of texts"),
    "metrics": (lambda value: isinstance(value, tuple | list), "a tuple of MetricDef"),
    "range": (_is_range, "two finite numbers, the lower one first"),
    "path": (lambda value: isinstance(value, str | Path), "a path"),
    "recipe": (lambda value: value is None or isinstance(value, str), "a text or None"),
    "needs": (callable, "a function"),
    "reads": (lambda value: value is None or callable(value), "a function or None"),
    "marks": (lambda value: value is None or isinstance(value, str) or callable(value), "'pkg.mod:function'"),
    "provides_logprobs": (lambda value: isinstance(value, bool), "True or False"),
    "samples_during_update": (lambda value: value is None or callable(value), "a function or None"),
    "truncates": (lambda value: isinstance(value, bool), "True or False"),
}


def _check_types(hook: str, spec: Any) -> None:
    """Raise PluginContractError for a field of a wrong type, which would break a command that lists plugins."""
    for field, (is_right, expected) in _TYPES.items():
        if hasattr(spec, field) and not is_right(getattr(spec, field)):
            got = type(getattr(spec, field)).__name__
            raise PluginContractError(f"{hook}: {field} of '{spec.name}' is of type {got}, expected {expected}")


def _check_spec(hook: str, spec: object, expected: type) -> None:
    if not isinstance(spec, expected):
        raise PluginContractError(f"{hook} returned {type(spec).__name__}, expected {expected.__name__}")
    _check_types(hook, spec)
    if not isinstance(spec, ComponentSpec):
        return
    if not (isinstance(spec.config, type) and is_dataclass(spec.config)):
        raise PluginContractError(f"{hook}: config of '{spec.name}' is {spec.config!r}, expected a dataclass")
    get_type_hints(spec.config)  # raises for a type that the plugin forgot to import
    for taken in ("name", "weight", *REWARD_LIMITS) if spec.kind == "reward" else ("name",):
        if taken in {f.name for f in fields(spec.config)}:
            raise PluginContractError(f"{hook}: option '{taken}' is reserved; rename it in '{spec.name}'")
    lazy = isinstance(spec.factory, str) and all(spec.factory.partition(":"))
    if not lazy and not callable(spec.factory):
        raise PluginContractError(
            f"{hook}: factory of '{spec.name}' is {spec.factory!r}, expected 'pkg.mod:Class' or a callable"
        )

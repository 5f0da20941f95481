"""Convert a resolved recipe to plain data for run.json, observers and trackers, without secrets."""

from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from enum import Enum
from pathlib import PurePath
from typing import Any

from reasonrl.contracts.specs import REWARD_LIMITS, RewardSpec
from reasonrl.plugins import Component
from reasonrl.recipe.resolved import AnyResolved, ResolvedRecipe
from reasonrl.recipe.source import Keys, in_secret
from reasonrl.redact import FROM_ENVIRONMENT, REDACTED, redact_text


def render_plain(resolved: AnyResolved) -> dict[str, Any]:
    """Every key of the recipe with its value, defaults included, JSON values only.

    A value under a key that is named as a secret is redacted; one that came from the environment is shown as
    ``set from the environment``.
    """
    data = _plain(asdict(resolved.recipe))
    for slot, component in _slots(resolved).items():
        data[slot] = _component(component)
    data["rewards"] = {
        name: {"weight": part.weight, **_limits(part.spec), **_plain(asdict(part.config))}
        for name, part in resolved.rewards.items()
    }
    for name, suite in resolved.suites.items():
        data["evaluation"]["suites"][name]["task"] = _component(suite.task)
    return dict(_redact(data, (), resolved.interpolated))


def _limits(spec: RewardSpec) -> dict[str, object]:
    """How a reward is isolated; nothing for one that is not."""
    return {key: getattr(spec, key) for key in REWARD_LIMITS} if spec.isolation == "process" else {}


def _slots(resolved: AnyResolved) -> dict[str, Component]:
    slots = {"rollout_backend": resolved.rollout_backend}
    if resolved.task is not None:
        slots["task"] = resolved.task
    if isinstance(resolved, ResolvedRecipe):
        slots["algorithm"] = resolved.algorithm
    return slots


def _component(component: Component) -> dict[str, object]:
    return {"name": component.name, **_plain(asdict(component.config))}


def _plain(value: object) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return _plain(asdict(value))
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(entry) for entry in value]
    if isinstance(value, Enum):
        return value.value
    return str(value) if isinstance(value, PurePath) else value


def _redact(value: object, at: Keys, interpolated: frozenset[Keys]) -> Any:
    if isinstance(value, dict):
        return {key: _redact(entry, (*at, key), interpolated) for key, entry in value.items()}
    if at in interpolated:
        return FROM_ENVIRONMENT
    if isinstance(value, list):
        return [_redact(entry, at, interpolated) for entry in value]
    if at and in_secret(at, value):
        return REDACTED
    return redact_text(value) if isinstance(value, str) else value

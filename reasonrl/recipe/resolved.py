"""What ``load_recipe`` returns: the recipe with every name looked up and every config typed. Torch-free."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from reasonrl.contracts.specs import Needs
from reasonrl.plugins import Component, RewardComponent
from reasonrl.recipe.schema import Recipe, SftRecipe
from reasonrl.recipe.source import Source
from reasonrl.recipe.suites import SuiteConfig


@dataclass(frozen=True, kw_only=True)
class ResolvedSuite:
    """A suite and its task. ``rewards``: the recipe's, or the defaults of the suite's own task."""

    config: SuiteConfig
    task: Component
    rewards: Mapping[str, RewardComponent]


@dataclass(frozen=True, kw_only=True)
class _Resolved:
    rewards: Mapping[str, RewardComponent]
    rollout_backend: Component
    suites: Mapping[str, ResolvedSuite]
    model_path: str
    """A folder, or a hub name."""
    source_yaml: str
    """The recipe after ``extends`` and overrides, interpolations unresolved: what a run folder keeps."""
    path: Path
    source: Source = field(repr=False, compare=False)
    """Says in an error where a key was written."""
    interpolated: frozenset[tuple[str, ...]] = field(default_factory=frozenset)
    """Keys whose values came from the environment; shown as they were written."""


@dataclass(frozen=True, kw_only=True)
class ResolvedRecipe(_Resolved):
    """A checked recipe, ready to run."""

    recipe: Recipe
    task: Component
    algorithm: Component
    needs: Needs


@dataclass(frozen=True, kw_only=True)
class ResolvedSft(_Resolved):
    """A checked supervised recipe. ``task`` is None when the demonstrations come from a file."""

    recipe: SftRecipe
    task: Component | None


AnyResolved = ResolvedRecipe | ResolvedSft


def components(resolved: AnyResolved) -> list[Component | RewardComponent]:
    """Every component that the recipe names."""
    found: list[Component | RewardComponent] = [resolved.rollout_backend, *resolved.rewards.values()]
    for suite in resolved.suites.values():
        found += [suite.task, *suite.rewards.values()]
    found += [resolved.task] if resolved.task else []
    return [*found, resolved.algorithm] if isinstance(resolved, ResolvedRecipe) else found

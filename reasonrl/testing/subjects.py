"""Subjects of checks: a component, its options and the loaded plugins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_type_hints

from reasonrl.contracts.specs import ComponentSpec
from reasonrl.plugins import Kind, Plugins, load_plugins
from reasonrl.recipe.source import Source
from reasonrl.recipe.typed import build
from reasonrl.testing.checks import Checks, require

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

SpecT = TypeVar("SpecT", bound=ComponentSpec)
SubjectT = TypeVar("SubjectT", bound="Subject")


@dataclass(kw_only=True)
class Subject:
    """A component under test. ``options`` are those of its slot in a recipe."""

    spec: ComponentSpec
    plugins: Plugins
    options: Mapping[str, object] = field(default_factory=dict)

    @property
    def label(self) -> str:
        return f"{self.spec.kind} {self.spec.name}"

    @cached_property
    def config(self) -> DataclassInstance:
        """Build an instance of the spec's config.

        Raises:
            RecipeError: If the options are invalid.
        """
        return typed_config(self.spec, self.options)

    def make(self, context: object) -> Any:
        """Build a new component; errors name the plugin."""
        return self.plugins.build(self.spec, self.config, context)


def typed_config(spec: ComponentSpec, options: Mapping[str, object]) -> DataclassInstance:
    """Build ``spec.config`` from options, as a recipe would."""
    source = Source(path=Path(f"options of {spec.kind} '{spec.name}'"), data={spec.kind: dict(options)})
    return build(spec.config, dict(options), source, (spec.kind,), of=f"{spec.kind} '{spec.name}'")


def find(kind: Kind, spec: str | SpecT, plugins: Plugins | None, files: Sequence[str]) -> tuple[SpecT, Plugins]:
    """Return the spec for a name (or the spec itself) and the loaded plugins."""
    known = plugins if plugins is not None else load_plugins(files=files)
    return (known.get(kind, spec) if isinstance(spec, str) else spec), known


def add_common(checks: Checks[SubjectT]) -> None:
    """Add the checks common to every kind of component."""
    for function in (has_a_summary, options_have_help, defaults_are_valid):
        checks()(function)


def has_a_summary(subject: Subject) -> None:
    """The spec has a one-line summary."""
    summary = subject.spec.summary
    require(isinstance(summary, str) and bool(summary.strip()), "summary is empty")
    require("\n" not in summary, "summary has more than one line")


def options_have_help(subject: Subject) -> None:
    """Every option has a help text: ``field(metadata={"help": ...})``."""
    silent = _without_help(subject.spec.config, "")
    require(not silent, f"no help for {', '.join(silent)}; write field(metadata={{'help': '...'}})")


def defaults_are_valid(subject: Subject) -> None:
    """The options (default: none) form a valid config."""
    require(isinstance(subject.config, subject.spec.config), f"config is {type(subject.config).__name__}")


def _without_help(config: type, prefix: str) -> list[str]:
    hints, silent = get_type_hints(config), []
    for option in fields(config):
        inner = hints[option.name]
        if isinstance(inner, type) and is_dataclass(inner):
            silent += _without_help(inner, f"{prefix}{option.name}.")
        elif not str(option.metadata.get("help", "")).strip():
            silent.append(prefix + option.name)
    return silent

"""The loaded plugins of a process, by what they provide."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from reasonrl.contracts.specs import AnySpec, ComponentSpec, Marks, RewardSpec, TaskSpec
from reasonrl.errors import RAISABLE, PluginConflictError, PluginNotFoundError, plugin_call, plugin_code
from reasonrl.importing import is_installed, resolve
from reasonrl.plugins.directory import origin
from reasonrl.redact import redacting_logger
from reasonrl.text import suggest

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

log = redacting_logger(__name__)

Kind = Literal["task", "reward", "algorithm", "rollout_backend", "model", "recipe"]
FLAG = "--plugin"
"""Stands for the distribution of a plugin that was given by this flag."""
KINDS: tuple[Kind, ...] = ("task", "reward", "algorithm", "rollout_backend", "model", "recipe")
Status = Literal["active", "broken", "unavailable", "incompatible", "disabled"]


@dataclass(frozen=True, kw_only=True)
class PluginRecord:
    """What is known of one plugin.

    ``active``: usable. ``broken``: raised or broke the contract; offers nothing. ``unavailable``: loaded, but
    a backend lacks a module. ``incompatible``: declares another version of reasonrl; not imported.
    ``disabled``: left out by REASONRL_PLUGINS; not imported. ``provides`` holds entries such as
    ``"task countdown"``, ``hooks`` the hooks that it implements, ``deprecations`` what it uses that a later version
    will not have. ``file`` and ``sha256``: of a plugin given by ``--plugin``.
    """

    name: str
    distribution: str
    version: str
    status: Status
    value: str
    provides: tuple[str, ...] = ()
    error: str | None = None
    traceback: str | None = None
    deprecations: tuple[str, ...] = ()
    hooks: tuple[str, ...] = ()
    file: str = ""
    sha256: str = ""

    @property
    def label(self) -> str:
        """``countdown (reasonrl 0.1.0)``, for messages."""
        return f"{self.name} ({self.distribution} {self.version})".replace(" )", ")")

    def as_dict(self) -> dict[str, object]:
        """The JSON form of ``plugins list --json``."""
        return {
            "name": self.name,
            "distribution": self.distribution,
            "version": self.version,
            "status": self.status,
            "provides": list(self.provides),
            "error": self.error,
        }


@dataclass(frozen=True, kw_only=True)
class RunPlugin:
    """A ``--plugin`` that a run was started with: ``value`` as it was given, and the file that it was then.

    ``obstacle``: why it must not be loaded again; empty if it may.
    """

    run: str
    name: str
    value: str
    file: str
    sha256: str
    provides: tuple[str, ...]
    obstacle: str = ""


@dataclass(frozen=True, kw_only=True)
class Component:
    """A slot of a recipe: the spec it names and that spec's config, an instance of ``spec.config``."""

    spec: ComponentSpec
    config: DataclassInstance

    @property
    def name(self) -> str:
        """The name under which the plugin registered it."""
        return self.spec.name


@dataclass(frozen=True, kw_only=True)
class RewardComponent:
    """A reward and its weight in the total."""

    spec: RewardSpec
    config: DataclassInstance
    weight: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Provided:
    """One spec and the plugin that offers it."""

    spec: AnySpec
    record: PluginRecord


@dataclass(frozen=True, kw_only=True)
class Observer:
    """One implementation of an observer hook."""

    plugin: str
    function: Callable[..., object]
    argnames: tuple[str, ...]


@dataclass(kw_only=True)
class Plugins:
    """The loaded plugins of one process. Made by ``load_plugins``; nothing is global."""

    records: list[PluginRecord]
    provided: Mapping[tuple[str, str], Sequence[Provided]]
    observers: Mapping[str, Sequence[Observer]]
    _silenced: set[str] = field(default_factory=set)

    def get(self, kind: Kind, name: str, *, allow_unavailable: bool = False) -> Any:
        """The spec of that name.

        Raises:
            PluginNotFoundError: (no provider, or it lacks a module), PluginConflictError (two).
        """
        found = self._one(kind, name)
        if not allow_unavailable and (missing := missing_modules(found.spec)):
            raise PluginNotFoundError(_unavailable_text(found.spec, missing))
        return found.spec

    def provider(self, kind: Kind, name: str) -> PluginRecord:
        """The record of the plugin that offers the component."""
        return self._one(kind, name).record

    def specs(self, kind: Kind) -> list[AnySpec]:
        """All specs of a kind, by name; of two providers of one name, both."""
        return [p.spec for key in sorted(self.provided) if key[0] == kind for p in self.provided[key]]

    def build(self, spec: ComponentSpec, config: object, context: object) -> Any:
        """Call the spec's factory with ``(config, context)``.

        Raises:
            RecipeError: when the factory raises ValueError (the user's config is wrong), PluginContractError when it
                raises anything else; a ReasonRLError passes as it is.
        """
        where = self.label(spec)
        with plugin_call(f"{where}: its factory", invalid=where):
            factory = resolve(spec.factory) if isinstance(spec.factory, str) else spec.factory
            return factory(config, context)

    def task_marks(self) -> dict[str, Marks]:
        """What highlights the completions of a task in a report, by name of the task."""
        tasks = (spec for spec in self.specs("task") if isinstance(spec, TaskSpec))
        return {task.name: _lazy(task.marks) for task in tasks if task.marks is not None}

    def label(self, spec: ComponentSpec) -> str:
        """``algorithm 'ppo' (plugin ppo (reasonrl 0.1.0))``, for messages."""
        owners = self.provided.get((spec.kind, spec.name), ())
        owner = next((f" (plugin {p.record.label})" for p in owners if p.spec is spec), "")
        return f"{spec.kind} '{spec.name}'{owner}"

    def observe(self, hook: str, **kwargs: object) -> None:
        """Call every implementation of an observer hook. One that raises is logged and silenced for good."""
        for observer in self.observers.get(hook, ()):
            if observer.plugin in self._silenced:
                continue
            try:
                with plugin_code(f"plugin '{observer.plugin}': {hook}"):
                    observer.function(**{name: kwargs[name] for name in observer.argnames if name in kwargs})
            except RAISABLE:  # an observer must never stop a run
                self._silenced.add(observer.plugin)
                log.exception("plugin '%s' raised in %s; it observes nothing more in this run", observer.plugin, hook)

    def _one(self, kind: Kind, name: str) -> Provided:
        found = self.provided.get((kind, name), ())
        if len(found) > 1:
            who = " and ".join(p.record.label for p in found)
            raise PluginConflictError(
                f"{kind} '{name}' is provided by {who}; uninstall one, or name the plugins to load in REASONRL_PLUGINS"
            )
        if not found:
            raise PluginNotFoundError(self._not_found_text(kind, name))
        return found[0]

    def _not_found_text(self, kind: Kind, name: str) -> str:
        names = sorted({n for k, n in self.provided if k == kind})
        parts = [f"no {kind} '{name}'{suggest(name, names)}"]
        if others := [k for k in KINDS if k != kind and (k, name) in self.provided]:
            parts.append(f"'{name}' is {_with_article(others[0])}, not {_with_article(kind)}")
        if home := origin(kind, name):
            parts.append(home)
        parts.append(f"installed: {', '.join(names) or 'none'}")
        if kind in ("task", "reward", "algorithm") and not any(r.distribution == FLAG for r in self.records):
            parts.append("one in a file needs --plugin FILE")
        parts.extend(
            f"plugin {r.label} is {r.status}: {r.error}" for r in self.records if r.status in ("broken", "incompatible")
        )
        if disabled := [r.name for r in self.records if r.status == "disabled"]:
            parts.append(f"disabled by REASONRL_PLUGINS: {', '.join(disabled)}")
        return "; ".join(parts)


def find_records(plugins: Plugins, name: str) -> list[PluginRecord]:
    """The plugins of that name or distribution.

    Raises:
        PluginNotFoundError: with the nearest name.
    """
    found = [r for r in plugins.records if name in (r.name, r.distribution)]
    if found:
        return found
    names = sorted({r.name for r in plugins.records})
    raise PluginNotFoundError(f"no plugin '{name}'{suggest(name, names)}; installed: {', '.join(names) or 'none'}")


def missing_modules(spec: AnySpec) -> list[str]:
    """The modules that a component needs and this environment lacks. Imports nothing."""
    if not isinstance(spec, ComponentSpec):
        return []
    return [module for module in spec.modules if not is_installed(module)]


def _unavailable_text(spec: AnySpec, missing: Sequence[str]) -> str:
    hint = getattr(spec, "install", "") or f"install {', '.join(missing)}"
    return f"{spec.kind} '{spec.name}' is unavailable here: no module {', '.join(missing)}; {hint}"


def unavailable_reason(spec: AnySpec) -> str | None:
    """Why a known component cannot run here, with the cure; None if it can."""
    missing = missing_modules(spec)
    return _unavailable_text(spec, missing) if missing else None


def _lazy(reference: str | Marks) -> Marks:
    """A function that is imported when it is called."""

    def call(info: Mapping[str, Any], completion: str) -> Iterable[tuple[int, int, str]]:
        function: Marks = resolve(reference) if isinstance(reference, str) else reference
        return function(info, completion)

    return call


def _with_article(kind: str) -> str:
    return f"an {kind}" if kind.startswith("a") else f"a {kind}"

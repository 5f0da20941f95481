"""The loader behind ``reasonrl.plugins.load_plugins``: one plugin at a time, each inside its own ``try``."""

import contextlib
import importlib
import importlib.metadata
import importlib.util
import sys
import traceback
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any, get_type_hints

from pluggy import HookImpl, PluginManager

import reasonrl
from reasonrl.contracts.hookspecs import ENTRY_POINT_GROUP, ReasonRLSpecs
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
from reasonrl.errors import PluginContractError, PluginNotFoundError
from reasonrl.plugins import (
    Observer,
    PluginRecord,
    Plugins,
    Provided,
    describe,
    nearest,
    one_line,
    unavailable_reason,
)
from reasonrl.redact import redacting_logger

log = redacting_logger(__name__)

REGISTRATION_HOOKS: Mapping[str, type] = {
    "reasonrl_tasks": TaskSpec,
    "reasonrl_rewards": RewardSpec,
    "reasonrl_algorithms": AlgorithmSpec,
    "reasonrl_rollout_backends": RolloutBackendSpec,
    "reasonrl_models": ModelSpec,
    "reasonrl_recipes": RecipeSpec,
}
API_ATTRIBUTE = "REASONRL_API"
"""A plugin may say in this attribute for which plugin interface it is written: ``REASONRL_API = 1``."""
OBSERVER_HOOKS = ("reasonrl_run_started", "reasonrl_step_finished", "reasonrl_run_finished")


@dataclass(kw_only=True)
class _Source:
    """Where a plugin comes from, before it is imported."""

    name: str
    value: str
    distribution: str
    version: str
    requires: tuple[str, ...] = ()

    def record(self, status: Any, error: str | None = None, trace: str | None = None) -> PluginRecord:
        return PluginRecord(
            name=self.name,
            distribution=self.distribution,
            version=self.version,
            value=self.value,
            status=status,
            error=error,
            traceback=trace,
        )


@dataclass(kw_only=True)
class _Loader:
    manager: PluginManager
    records: list[PluginRecord] = field(default_factory=list)
    provided: dict[tuple[str, str], list[Provided]] = field(default_factory=dict)

    def add(self, source: _Source, plugin: Any) -> None:
        """Register an imported plugin and collect what it offers. Leaves nothing behind if it raises."""
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")  # pluggy warns of hooks and arguments that are on their way out
            self.manager.register(plugin, name=source.record("active").label)
        deprecations = tuple(one_line(warning.message) for warning in caught)
        for text in deprecations:
            log.warning("plugin %s: %s", source.record("active").label, text)
        try:
            _check_hooks(self.manager, plugin)
            specs = self._collect(plugin)
        except BaseException:
            self.manager.unregister(plugin)
            raise
        reasons = [reason for spec in specs if (reason := unavailable_reason(spec))]
        record = source.record("unavailable" if reasons else "active", "; ".join(reasons) or None)
        record = replace(
            record,
            provides=tuple(f"{s.kind} {s.name}" for s in specs),
            deprecations=deprecations,
            hooks=tuple(sorted(caller.name for caller in self.manager.get_hookcallers(plugin) or ())),
        )
        self.records.append(record)
        for spec in specs:
            self.provided.setdefault((spec.kind, spec.name), []).append(Provided(spec=spec, record=record))

    def _collect(self, plugin: Any) -> list[AnySpec]:
        specs: list[AnySpec] = []
        for hook, expected in REGISTRATION_HOOKS.items():
            for impl in self._implementations(hook, plugin):
                specs.extend(_call_registration(hook, impl, expected))
        return specs

    def _implementations(self, hook: str, plugin: Any) -> list[HookImpl]:
        return [i for i in getattr(self.manager.hook, hook).get_hookimpls() if i.plugin is plugin]

    def finish(self) -> Plugins:
        records = [replace(r, error=self._conflicts(r) or r.error) for r in self.records]
        by_name = {(r.distribution, r.name): r for r in records}
        provided = {
            key: [Provided(spec=p.spec, record=by_name[p.record.distribution, p.record.name]) for p in found]
            for key, found in self.provided.items()
        }
        return Plugins(records=records, provided=provided, observers=_observers(self.manager))

    def _conflicts(self, record: PluginRecord) -> str | None:
        found = []
        for (kind, name), providers in sorted(self.provided.items()):
            labels = [p.record.label for p in providers]
            if len(labels) > 1 and record.label in labels:
                labels.remove(record.label)
                found.append(f"conflict: {kind} '{name}' is also provided by {', '.join(labels)}")
        return "; ".join(found) or None


def load(files: Sequence[str], allowed: str | None, objects: Sequence[Any] = ()) -> Plugins:
    """See ``reasonrl.plugins.load_plugins``. ``allowed`` is the text of REASONRL_PLUGINS, None if unset."""
    manager = PluginManager("reasonrl")
    manager.add_hookspecs(ReasonRLSpecs)
    loader = _Loader(manager=manager)
    allow = None if allowed is None else {name.strip() for name in allowed.split(",") if name.strip()}
    sources, damaged = _installed()
    loader.records.extend(damaged)
    _warn_unknown(allow, sources)
    for source in sources:
        _load_installed(loader, source, allow)
    for file in files:
        _load_file(loader, file)
    for plugin in objects:
        _load_object(loader, plugin)
    return loader.finish()


def _installed() -> tuple[list[_Source], list[PluginRecord]]:
    """Every entry point of the group, sorted, and a broken record for each distribution that cannot be read.

    Distributions are read one by one: ``importlib.metadata.entry_points`` fails as a whole when one of them
    has a damaged file.
    """
    found: dict[tuple[str, str], _Source] = {}
    broken: list[PluginRecord] = []
    seen: set[str] = set()
    for dist in importlib.metadata.distributions():
        name = "unknown"
        try:
            if f"[{ENTRY_POINT_GROUP}]" not in (dist.read_text("entry_points.txt") or ""):
                continue
            name = dist.name or name
            if name.lower() in seen:  # an older copy, further down sys.path
                continue
            seen.add(name.lower())
            for source in _sources(dist, name):
                found.setdefault((source.name, source.value), source)
        except Exception as err:  # noqa: BLE001 - damaged metadata of one distribution, whatever it is
            source = _Source(name=name, value="entry_points.txt", distribution=name, version="")
            broken.append(source.record("broken", describe(err), traceback.format_exc()))
    return [found[key] for key in sorted(found)], broken


def _sources(dist: importlib.metadata.Distribution, name: str) -> list[_Source]:
    version, requires = dist.version or "", tuple(dist.requires or ())
    return [
        _Source(name=entry.name, value=entry.value, distribution=name, version=version, requires=requires)
        for entry in dist.entry_points
        if entry.group == ENTRY_POINT_GROUP
    ]


def _warn_unknown(allow: set[str] | None, sources: Sequence[_Source]) -> None:
    known = {s.name for s in sources} | {s.distribution for s in sources}
    for name in sorted((allow or set()) - known):
        close = nearest(name, sorted(known))
        hint = f"; did you mean '{close}'?" if close else ""
        log.warning("REASONRL_PLUGINS names '%s', which is not installed%s", name, hint)


def _load_installed(loader: _Loader, source: _Source, allow: set[str] | None) -> None:
    if allow is not None and not {source.name, source.distribution} & allow:
        loader.records.append(source.record("disabled", "left out by REASONRL_PLUGINS"))
        return
    try:
        if mismatch := _requirement_mismatch(source):
            loader.records.append(source.record("incompatible", mismatch))
            return
        plugin = _import_value(source.value)
        if mismatch := _api_mismatch(plugin):
            loader.records.append(source.record("incompatible", mismatch))
            return
        loader.add(source, plugin)
    except KeyboardInterrupt:
        raise
    except BaseException as err:  # noqa: BLE001 - a plugin may raise anything, even SystemExit
        loader.records.append(source.record("broken", describe(err), traceback.format_exc()))


def _requirement_mismatch(source: _Source) -> str | None:
    """Why the plugin's distribution does not accept this reasonrl, or None."""
    declared = [text for text in source.requires if text.lower().startswith("reasonrl")]
    if not declared or source.distribution == "reasonrl":
        return None
    from packaging.requirements import Requirement

    for requirement in map(Requirement, declared):
        applies = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        fits = requirement.specifier.contains(reasonrl.__version__, prereleases=True)
        if requirement.name.lower() == "reasonrl" and applies and not fits:
            wanted, running = requirement.specifier, reasonrl.__version__
            return f"requires reasonrl {wanted}, this is {running}; upgrade one of them"
    return None


def _api_mismatch(plugin: Any) -> str | None:
    """Why the interface that the plugin is written for is not this one, or None."""
    wanted, ours = getattr(plugin, API_ATTRIBUTE, None), reasonrl.API_VERSION
    if wanted is None:
        return None
    if isinstance(wanted, bool) or not isinstance(wanted, int):
        raise PluginContractError(f"{API_ATTRIBUTE} is {wanted!r}, expected a whole number such as {ours}")
    if wanted == ours:
        return None
    cure = "upgrade reasonrl" if wanted > ours else "upgrade the plugin"
    return f"is written for plugin interface {wanted}, reasonrl {reasonrl.__version__} has {ours}; {cure}"


def _import_value(value: str) -> Any:
    # What a plugin prints while it is imported must not end up in the middle of --json output.
    with contextlib.redirect_stdout(sys.stderr):
        module, _, attribute = value.partition(":")
        target: Any = importlib.import_module(module.strip())
        for part in filter(None, attribute.strip().split(".")):
            target = getattr(target, part)
    return target


def _load_file(loader: _Loader, file: str) -> None:
    path = Path(file)
    is_file = file.endswith(".py") or path.exists()
    if is_file and not path.is_file():
        raise PluginNotFoundError(f"--plugin {file}: no such file")
    name = path.stem if is_file else file
    source = _Source(name=name, value=file, distribution="--plugin", version="")
    try:
        _add_wanted(loader, source, _import_file(path) if is_file else _import_value(file))
    except KeyboardInterrupt:
        raise
    except BaseException as err:  # a plugin may raise anything
        raise PluginContractError(f"--plugin {file}: {describe(err)}") from err


def _load_object(loader: _Loader, plugin: Any) -> None:
    name = getattr(plugin, "__name__", type(plugin).__name__)
    value = name if isinstance(plugin, ModuleType) else type(plugin).__module__
    source = _Source(name=name, value=value, distribution="--plugin", version="")
    try:
        _add_wanted(loader, source, plugin)
    except KeyboardInterrupt:
        raise
    except BaseException as err:  # a plugin may raise anything
        raise PluginContractError(f"plugin {name}: {describe(err)}") from err


def _add_wanted(loader: _Loader, source: _Source, plugin: Any) -> None:
    if mismatch := _api_mismatch(plugin):
        raise PluginContractError(mismatch)
    loader.add(source, plugin)


def _import_file(path: Path) -> ModuleType:
    """Import a file as the top-level module of its name, so that its classes pickle into worker processes."""
    folder = str(path.resolve().parent)
    if folder not in sys.path:
        sys.path.append(folder)
    module = _import_value(path.stem)
    if Path(module.__file__ or "").resolve() != path.resolve():
        raise ImportError(f"a module named '{path.stem}' exists already ({module.__file__}); rename the file")
    return module


def _check_hooks(manager: PluginManager, plugin: Any) -> None:
    manager.check_pending()
    callers = manager.get_hookcallers(plugin) or []
    marked = {caller.name for caller in callers}
    for hook in (*REGISTRATION_HOOKS, *OBSERVER_HOOKS):
        if callable(getattr(plugin, hook, None)) and hook not in marked:
            raise PluginContractError(f"{hook} is not marked with @reasonrl.hookimpl")
    if not callers:
        raise PluginContractError("offers nothing: it has no function marked with @reasonrl.hookimpl")


def _call_registration(hook: str, impl: HookImpl, expected: type) -> list[AnySpec]:
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


def _check_spec(hook: str, spec: Any, expected: type) -> None:
    if not isinstance(spec, expected):
        raise PluginContractError(f"{hook} returned {type(spec).__name__}, expected {expected.__name__}")
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


def _observers(manager: PluginManager) -> dict[str, list[Observer]]:
    found: dict[str, list[Observer]] = {}
    for hook in OBSERVER_HOOKS:
        for impl in getattr(manager.hook, hook).get_hookimpls():
            names = (*impl.argnames, *impl.kwargnames)
            found.setdefault(hook, []).append(
                Observer(plugin=impl.plugin_name, function=impl.function, argnames=names)
            )
    return found

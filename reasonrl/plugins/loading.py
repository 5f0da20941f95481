"""Loads plugins, one at a time, each inside its own ``try``."""

import hashlib
import importlib.metadata
import os
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType

from pluggy import HookImpl, PluginManager

from reasonrl import importing
from reasonrl.contracts.hookspecs import ENTRY_POINT_GROUP, ReasonRLSpecs
from reasonrl.contracts.specs import AnySpec
from reasonrl.errors import PluginContractError, PluginNotFoundError, describe, one_line, plugin_code
from reasonrl.plugins.registry import (
    FLAG,
    Observer,
    PluginRecord,
    Plugins,
    Provided,
    RunPlugin,
    Status,
    unavailable_reason,
)
from reasonrl.plugins.specs import OBSERVER_HOOKS, REGISTRATION_HOOKS, call_registration, check_hooks
from reasonrl.redact import format_traceback, redacting_logger
from reasonrl.text import suggest
from reasonrl.version import API_VERSION, __version__

log = redacting_logger(__name__)

API_ATTRIBUTE = "REASONRL_API"
"""A plugin may say in this attribute for which plugin interface it is written: ``REASONRL_API = 1``."""


@dataclass(kw_only=True)
class _Source:
    """Where a plugin comes from, before it is imported."""

    name: str
    value: str
    distribution: str
    version: str
    requires: tuple[str, ...] = ()
    file: str = ""
    sha256: str = ""

    def record(self, status: Status, error: str | None = None, trace: str | None = None) -> PluginRecord:
        return PluginRecord(
            name=self.name,
            distribution=self.distribution,
            version=self.version,
            value=self.value,
            status=status,
            error=error,
            traceback=trace,
            file=self.file,
            sha256=self.sha256,
        )


@dataclass(kw_only=True)
class _Loader:
    manager: PluginManager
    records: list[PluginRecord] = field(default_factory=list)
    provided: dict[tuple[str, str], list[Provided]] = field(default_factory=dict)

    def add(self, source: _Source, plugin: object) -> None:
        """Register an imported plugin and collect what it offers. Leaves nothing behind if it raises."""
        label = source.record("active").label
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")  # pluggy warns of hooks and arguments that are on their way out
                self.manager.register(plugin, name=label)
            deprecations = tuple(one_line(warning.message) for warning in caught)
            for text in deprecations:
                log.warning("plugin %s: %s", label, text)
            check_hooks(self.manager, plugin)
            specs = self._collect(plugin)
        except BaseException:
            if self.manager.get_plugin(label) is plugin:
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

    def _collect(self, plugin: object) -> list[AnySpec]:
        specs: list[AnySpec] = []
        for hook, expected in REGISTRATION_HOOKS.items():
            for impl in self._implementations(hook, plugin):
                specs.extend(call_registration(hook, impl, expected))
        return specs

    def _implementations(self, hook: str, plugin: object) -> list[HookImpl]:
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


def load_plugins(
    *,
    files: Sequence[str] = (),
    environ: Mapping[str, str] = os.environ,
    objects: Sequence[object] = (),
    of_run: Sequence[RunPlugin] = (),
) -> Plugins:
    """Load every installed plugin, and the given files and objects.

    Args:
        files: paths of Python files or dotted module names, loaded besides the installed plugins whatever
            REASONRL_PLUGINS says.
        environ: REASONRL_PLUGINS, if set, is a comma-separated list of the plugins (entry point or
            distribution names) to load; empty = none.
        objects: modules or other objects with ``@hookimpl`` functions, loaded like files.
        of_run: what a run was started with; loaded unless it is there already. One that is not what it was is
            listed as broken, with what to do.

    Raises:
        PluginError: only for ``files`` and ``objects``: they were asked for.
    """
    allowed = environ.get("REASONRL_PLUGINS")
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
    for known in of_run:
        _load_of_run(loader, known)
    return loader.finish()


def _installed() -> tuple[list[_Source], list[PluginRecord]]:
    """Every entry point of the group, sorted, and a broken record for each distribution that cannot be read.

    Distributions are read one by one: ``importlib.metadata.entry_points`` fails as a whole when one of them
    has a damaged file.
    """
    found: dict[tuple[str, str], _Source] = {}
    broken: list[PluginRecord] = []
    seen: set[str] = set()
    for dist in sorted(importlib.metadata.distributions(), key=_is_stale):
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
            broken.append(source.record("broken", describe(err), format_traceback(err)))
    return [found[key] for key in sorted(found)], broken


def _is_stale(dist: importlib.metadata.Distribution) -> bool:
    """Whether it says that it is another version of reasonrl, such as one that an upgrade has left behind.

    Found first, it would hide what this version provides.
    """
    try:
        lists_us = f"[{ENTRY_POINT_GROUP}]" in (dist.read_text("entry_points.txt") or "")
        return lists_us and dist.name.lower() == "reasonrl" and dist.version != __version__
    except Exception:  # noqa: BLE001 - damaged metadata, which has a record of its own
        return False


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
        hint = suggest(name, sorted(known))
        log.warning("REASONRL_PLUGINS names '%s', which is not installed%s", name, hint)


def _load_installed(loader: _Loader, source: _Source, allow: set[str] | None) -> None:
    if allow is not None and not {source.name, source.distribution} & allow:
        loader.records.append(source.record("disabled", "left out by REASONRL_PLUGINS"))
        return
    try:
        if mismatch := _requirement_mismatch(source):
            loader.records.append(source.record("incompatible", mismatch))
            return
        with _quiet_code(source.name):
            plugin = importing.resolve(source.value)
        if mismatch := _api_mismatch(plugin):
            loader.records.append(source.record("incompatible", mismatch))
            return
        with _quiet_code(source.name):
            loader.add(source, plugin)
    except KeyboardInterrupt:
        raise
    except BaseException as err:  # noqa: BLE001 - a plugin may raise anything, even SystemExit
        loader.records.append(source.record("broken", describe(err), format_traceback(err)))


def _requirement_mismatch(source: _Source) -> str | None:
    """Why the plugin's distribution does not accept this reasonrl, or None."""
    declared = [text for text in source.requires if text.lower().startswith("reasonrl")]
    if not declared or source.distribution == "reasonrl":
        return None
    from packaging.requirements import Requirement

    for requirement in map(Requirement, declared):
        applies = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        fits = requirement.specifier.contains(__version__, prereleases=True)
        if requirement.name.lower() == "reasonrl" and applies and not fits:
            wanted, running = requirement.specifier, __version__
            return f"requires reasonrl {wanted}, this is {running}; upgrade one of them"
    return None


def _api_mismatch(plugin: object) -> str | None:
    """Why the interface that the plugin is written for is not this one, or None."""
    wanted, ours = getattr(plugin, API_ATTRIBUTE, None), API_VERSION
    if wanted is None:
        return None
    if isinstance(wanted, bool) or not isinstance(wanted, int):
        raise PluginContractError(f"{API_ATTRIBUTE} is {wanted!r}, expected a whole number such as {ours}")
    if wanted == ours:
        return None
    cure = "upgrade reasonrl" if wanted > ours else "upgrade the plugin"
    return f"is written for plugin interface {wanted}, reasonrl {__version__} has {ours}; {cure}"


@contextmanager
def _quiet_code(name: str) -> Iterator[None]:
    # What a plugin prints while it is loaded must not end up in the middle of --json output.
    with redirect_stdout(sys.stderr), plugin_code(f"plugin '{name}'"):
        yield


def _load_file(loader: _Loader, file: str) -> None:
    path = Path(file)
    is_file = file.endswith(".py") or path.exists()
    if is_file and not path.is_file():
        kind = "is a folder, expected a Python file or an importable module" if path.is_dir() else "no such file"
        raise PluginNotFoundError(f"--plugin {file}: {kind}")
    source = _Source(name=path.stem if is_file else file, value=file, distribution=FLAG, version="")
    try:
        with _quiet_code(source.name):
            plugin = importing.import_file(path) if is_file else importing.resolve(file)
        if label := loader.manager.get_name(plugin):
            log.warning("--plugin %s: already loaded as plugin %s; leave --plugin out", file, label)
            return
        if found := getattr(plugin, "__file__", None):
            source.file, source.sha256 = str(Path(found).resolve()), _sha256(Path(found))
        _add_wanted(loader, source, plugin)
    except KeyboardInterrupt:
        raise
    except BaseException as err:  # a plugin may raise anything
        raise PluginContractError(f"--plugin {file}: {describe(err)}") from err


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _load_of_run(loader: _Loader, known: RunPlugin) -> None:
    """A plugin that a run was started with, unless it was given again, or is installed by now."""
    offered = {f"{kind} {name}" for kind, name in loader.provided}
    for given in loader.records:
        if given.distribution == FLAG and _stem(given.name) == _stem(known.name):
            if given.sha256 != known.sha256:
                log.warning("the plugin %s was edited after %s was started with it", given.file, known.run)
            return
    if known.provides and offered.issuperset(known.provides):
        return
    problem = known.obstacle or _not_as_it_was(known)
    if not problem:
        log.warning("loading the plugin %s, which %s was started with", known.file, known.run)
        try:
            _load_file(loader, known.value)
            return
        except PluginContractError as err:
            problem = str(err)
    way_out = f"--plugin {known.value} if you want it as it is" if Path(known.file).is_file() else "--plugin NEW_PLACE"
    error = f"{problem}; {known.run} was started with it: give {way_out}"
    log.warning("plugin '%s' is not loaded: %s", known.name, error)
    source = _Source(name=known.name, value=known.value, distribution=FLAG, version="", file=known.file)
    loader.records.append(source.record("broken", error))


def _stem(name: str) -> str:
    return name.rpartition(".")[2]


def _not_as_it_was(known: RunPlugin) -> str:
    path = Path(known.file)
    if not path.is_file():
        return f"{path} is not there any more"
    return "" if _sha256(path) == known.sha256 else f"{path} was edited after the run started"


def _load_object(loader: _Loader, plugin: object) -> None:
    name = getattr(plugin, "__name__", type(plugin).__name__)
    value = name if isinstance(plugin, ModuleType) else type(plugin).__module__
    source = _Source(name=name, value=value, distribution=FLAG, version="")
    try:
        _add_wanted(loader, source, plugin)
    except KeyboardInterrupt:
        raise
    except BaseException as err:  # a plugin may raise anything
        raise PluginContractError(f"plugin {name}: {describe(err)}") from err


def _add_wanted(loader: _Loader, source: _Source, plugin: object) -> None:
    with _quiet_code(source.name):
        if mismatch := _api_mismatch(plugin):
            raise PluginContractError(mismatch)
        loader.add(source, plugin)


def _observers(manager: PluginManager) -> dict[str, list[Observer]]:
    found: dict[str, list[Observer]] = {}
    for hook in OBSERVER_HOOKS:
        for impl in getattr(manager.hook, hook).get_hookimpls():
            names = (*impl.argnames, *impl.kwargnames)
            found.setdefault(hook, []).append(Observer(plugin=impl.plugin_name, function=impl.function, argnames=names))
    return found

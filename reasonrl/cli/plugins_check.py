"""``reasonrl plugins check``: conformance without pytest."""

import sys
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from reasonrl.cli.streams import print_json
from reasonrl.cli.table import table
from reasonrl.errors import RAISABLE, PluginContractError, RecipeError, describe, plugin_code
from reasonrl.importing import resolve
from reasonrl.text import suggest

if TYPE_CHECKING:
    from reasonrl.plugins import Plugins
    from reasonrl.testing.checks import CheckResult


@dataclass(frozen=True, kw_only=True)
class _Target:
    """The plugin to check: its name among ``plugins``, and the dependencies its project declares, if known."""

    name: str
    plugins: "Plugins"
    requires: tuple[str, ...] | None = None


def run_check(target: str, options: Sequence[str], task: str | None, as_json: bool, files: Sequence[str]) -> None:
    """Check a plugin and print one line per check.

    Raises:
        typer.Exit: With status 1 if a check failed.
        PluginError: If a plugin is missing, broken or in conflict.
        RecipeError: If an argument is wrong.
    """
    from reasonrl.cli.waiting import open_checks
    from reasonrl.testing.checks import observe_checks
    from reasonrl.testing.plugin import check_plugin

    found = _find(target, files)
    parsed = _parse(options)
    _refuse_unknown(found, parsed)
    with open_checks() as tell, observe_checks(tell):
        results = check_plugin(found.name, plugins=found.plugins, options=parsed, task=task, requires=found.requires)
    if as_json:
        rows = [{"subject": r.subject, "check": r.check, "status": r.status, "reason": r.reason} for r in results]
        print_json(rows)
    else:
        _print(results)
    if any(result.has_failed for result in results):
        raise typer.Exit(1)


def _print(results: "Sequence[CheckResult]") -> None:
    for subject, group in groupby(results, key=lambda result: result.subject):
        typer.echo(subject)
        rows = [(r.check, r.status, r.reason) for r in group]
        for line in table(("  CHECK", "RESULT", "REASON"), [(f"  {check}", *rest) for check, *rest in rows]):
            typer.echo(line)
        typer.echo("")
    counts = {status: sum(r.status == status for r in results) for status in ("ok", "failed", "not run")}
    typer.echo(", ".join(f"{count} {status}" for status, count in counts.items() if count or status != "not run"))


def _find(target: str, files: Sequence[str]) -> _Target:
    from reasonrl.plugins import load_plugins

    path = Path(target)
    if target.endswith(".py"):
        return _Target(name=path.stem, plugins=load_plugins(files=[*files, target]))
    if (path / "pyproject.toml").is_file():
        return _project(path, files)
    if path.is_dir() and ("/" in target or target in (".", "..")):
        raise RecipeError(f"{target} has no pyproject.toml; expected a plugin name, plugin file or project folder")
    return _Target(name=target, plugins=load_plugins(files=files))


def _project(folder: Path, files: Sequence[str]) -> _Target:
    """Find the plugin of a project, installed or not."""
    from reasonrl.plugins import load_plugins

    project = _read(folder / "pyproject.toml")
    points = project.get("entry-points", {}).get("reasonrl", {})
    if not isinstance(points, dict) or len(points) != 1:
        raise RecipeError(f"{folder}: pyproject.toml must have one entry point in group reasonrl, got {len(points)}")
    requires = tuple(project.get("dependencies", ()))
    installed = load_plugins(files=files)
    name = str(project.get("name", ""))
    if any(record.distribution == name for record in installed.records):
        return _Target(name=name, plugins=installed, requires=requires)
    (value,) = points.values()
    plugin = _import(folder, str(value))
    named = getattr(plugin, "__name__", type(plugin).__name__)
    return _Target(name=named, plugins=load_plugins(files=files, objects=[plugin]), requires=requires)


def _read(path: Path) -> Mapping[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8")).get("project", {})
    except (OSError, ValueError) as err:
        raise RecipeError(f"{path}: cannot be read: {err}") from err


def _import(folder: Path, value: str) -> object:
    source = folder / "src" if (folder / "src").is_dir() else folder
    sys.path.insert(0, str(source.resolve()))
    try:
        with plugin_code(f"plugin '{value}'"):
            return resolve(value)
    except RAISABLE as err:  # a plugin may raise anything
        raise PluginContractError(f"{folder}: {value} cannot be imported: {describe(err)}") from err


def _refuse_unknown(target: _Target, options: Iterable[tuple[str, str]]) -> None:
    """Raises RecipeError at options of what the plugin does not provide."""
    from reasonrl.plugins.registry import find_records

    provided = {offer for record in find_records(target.plugins, target.name) for offer in record.provides}
    for kind, name in options:
        if f"{kind} {name}" not in provided:
            names = sorted(offer.partition(" ")[2] for offer in provided if offer.startswith(f"{kind} "))
            hint = suggest(name, names)
            offers = ", ".join(sorted(provided)) or "nothing"
            raise RecipeError(f"option {kind}.{name}: the plugin has no {kind} '{name}'{hint}; it has: {offers}")


def _parse(options: Sequence[str]) -> dict[tuple[str, str], dict[str, object]]:
    """``task.add.count=4`` -> ``{("task", "add"): {"count": 4}}``."""
    from reasonrl.plugins import KINDS
    from reasonrl.recipe.source import command_line_source

    parsed: dict[tuple[str, str], list[str]] = {}
    for option in options:
        kind, _, rest = option.partition(".")
        name, _, setting = rest.partition(".")
        if kind not in KINDS or not name or "=" not in setting:
            raise RecipeError(f"option {option!r}: expected kind.name.key=value, such as task.add.count=4")
        parsed.setdefault((kind, name), []).append(setting)
    sources = {key: command_line_source(*key, settings).data[key[0]] for key, settings in parsed.items()}
    return {key: {k: v for k, v in data.items() if k != "name"} for key, data in sources.items()}

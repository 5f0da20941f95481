"""``reasonrl plugins``: what is installed, what it offers, what is wrong with it."""

import json
from collections.abc import Iterator
from dataclasses import MISSING, Field, fields, is_dataclass
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from reasonrl.cli.table import table, wrapped

if TYPE_CHECKING:
    from reasonrl.contracts.specs import AnySpec
    from reasonrl.plugins import PluginRecord, Plugins

app = typer.Typer(no_args_is_help=True, help="What is installed and what it offers.")

Files = Annotated[list[str] | None, typer.Option("--plugin", metavar="FILE", help="Load this one too.")]


@app.command(name="list")
def list_plugins(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False, plugin: Files = None
) -> None:
    """Every installed plugin with its status. A broken one is listed with its reason."""
    from reasonrl.plugins import load_plugins

    plugins = load_plugins(files=plugin or [])
    if as_json:
        typer.echo(json.dumps([record.as_dict() for record in plugins.records], indent=2))
        return
    rows = [
        (r.name, r.distribution, r.version, r.status, ", ".join(r.provides) or "-") for r in plugins.records
    ]
    for line in table(("NAME", "DISTRIBUTION", "VERSION", "STATUS", "PROVIDES"), rows):
        typer.echo(line)
    for record in plugins.records:
        if record.error:
            typer.echo(wrapped(f"{record.name}: {record.error}"))


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="Plugin, as in `plugins list`.")], plugin: Files = None
) -> None:
    """One plugin: its components, the options of each, and what is wrong with it."""
    from reasonrl.plugins import load_plugins

    plugins = load_plugins(files=plugin or [])
    for record in _named(plugins, name):
        for line in _describe(plugins, record):
            typer.echo(line)


def _named(plugins: "Plugins", name: str) -> "list[PluginRecord]":
    from reasonrl.errors import PluginNotFoundError
    from reasonrl.plugins import nearest

    found = [r for r in plugins.records if name in (r.name, r.distribution)]
    if found:
        return found
    names = sorted({r.name for r in plugins.records})
    close = nearest(name, names)
    hint = f"did you mean '{close}'? " if close else ""
    raise PluginNotFoundError(f"no plugin '{name}'; {hint}installed: {', '.join(names) or 'none'}")


def _describe(plugins: "Plugins", record: "PluginRecord") -> Iterator[str]:
    yield f"{record.label}: {record.status}"
    yield f"  from {record.value}"
    if record.error:
        yield wrapped(record.error, indent="  ")
    if record.traceback:
        yield from ("  " + line for line in record.traceback.rstrip().splitlines())
    for providers in plugins.provided.values():
        for provided in providers:
            if provided.record == record:
                yield ""
                yield from _component(provided.spec)


def _component(spec: "AnySpec") -> Iterator[str]:
    yield f"{spec.kind} {spec.name}"
    yield wrapped(spec.summary, indent="  ")
    if rewards := getattr(spec, "default_rewards", ()):
        yield f"  default rewards: {', '.join(rewards)}"
    rows = list(_options(getattr(spec, "config", None), ""))
    if rows:
        yield from ("  " + line for line in table(("OPTION", "DEFAULT", "HELP"), rows, width=78))


def _options(config: Any, prefix: str) -> Iterator[tuple[str, str, str]]:
    if config is None:
        return
    hints = get_type_hints(config)
    for option in fields(config):
        nested = hints[option.name]
        if isinstance(nested, type) and is_dataclass(nested):
            yield from _options(nested, f"{prefix}{option.name}.")
        else:
            yield prefix + option.name, _default(option), str(option.metadata.get("help", ""))


def _default(option: "Field[Any]") -> str:
    if option.default is not MISSING:
        return "null" if option.default is None else str(option.default)
    return str(option.default_factory()) if option.default_factory is not MISSING else "required"

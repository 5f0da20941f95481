"""``reasonrl plugins``: what is installed, what it offers, what is wrong with it; checking and starting one."""

import json
from collections.abc import Iterator
from dataclasses import MISSING, Field, fields, is_dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_type_hints

import typer

from reasonrl.cli.table import for_terminal, table, terminal_width, wrapped
from reasonrl.cli.usage import Commands

if TYPE_CHECKING:
    from reasonrl.contracts.specs import AnySpec
    from reasonrl.plugins import PluginRecord, Plugins

app = Commands(help="What is installed and what it offers; check or start a plugin.")

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
    rows = [(r.name, r.distribution, r.version, r.status, ", ".join(r.provides) or "-") for r in plugins.records]
    for line in table(("NAME", "DISTRIBUTION", "VERSION", "STATUS", "PROVIDES"), rows):
        typer.echo(line)
    for record in plugins.records:
        if record.error:
            typer.echo(wrapped(f"{record.name}: {record.error}"))


@app.command()
def show(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Plugin, as in `plugins list`.")],
    plugin: Files = None,
) -> None:
    """One plugin: its hooks and components, the options of each, and what is wrong with it."""
    from reasonrl.plugins import load_plugins, named_records

    plugins = load_plugins(files=plugin or [])
    for record in named_records(plugins, name):
        for line in _describe(plugins, record):
            typer.echo(line)


@app.command()
def check(
    target: Annotated[str, typer.Argument(metavar="NAME|PATH", help="Plugin, its file, or its project.")],
    options: Annotated[
        list[str] | None,
        typer.Argument(metavar="KEY=VALUE", help="Options of a component, such as task.add.count=4."),
    ] = None,
    task: Annotated[
        str | None, typer.Option("--task", metavar="TASK", help="Task whose problems its rewards judge.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    plugin: Files = None,
) -> None:
    """Try everything that the contracts ask of a plugin's parts. Exit status 1 if something does not hold."""
    from reasonrl.cli.plugins_check import run_check

    run_check(target, options or [], task, as_json, plugin or [])


@app.command()
def new(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Such as word-count: package reasonrl_word_count.")],
    kind: Annotated[
        Literal["task", "reward", "algorithm", "rollout_backend", "observer", "model", "recipes"],
        typer.Option(
            "--kind",
            metavar="KIND",
            help="What it offers: task, reward, algorithm, rollout_backend, observer, model or recipes.",
        ),
    ] = "task",
    folder: Annotated[str, typer.Option("--dir", metavar="DIR", help="Where to put the project.")] = ".",
) -> None:
    """Write a whole plugin project that works as it is: package, recipe, tests."""
    from reasonrl.cli.plugins_new import run_new

    run_new(name, kind, folder)


def _describe(plugins: "Plugins", record: "PluginRecord") -> Iterator[str]:
    yield f"{record.label}: {record.status}"
    yield f"  from {record.value}"
    if record.hooks:
        yield wrapped(f"hooks: {', '.join(record.hooks)}", indent="  ")
    for text in (record.error, *record.deprecations):
        if text:
            yield wrapped(text, indent="  ")
    if record.traceback:
        yield for_terminal(record.traceback.rstrip(), "  ")
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
    if papers := getattr(spec, "papers", ()):
        yield wrapped(f"papers: {', '.join(papers)}", indent="  ")
    if spec.kind == "reward":
        yield from _reward(spec)
    if path := getattr(spec, "path", None):
        yield f"  {path}"
    rows = list(_options(getattr(spec, "config", None), ""))
    if rows:
        yield from ("  " + line for line in table(("OPTION", "DEFAULT", "HELP"), rows, width=terminal_width() - 2))


def _reward(spec: Any) -> Iterator[str]:
    low, high = spec.range
    yield f"  range: {low:g} to {high:g}"
    if spec.isolation == "process":
        yield f"  runs in a process of its own, at most {spec.timeout_s:g} s a completion"


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

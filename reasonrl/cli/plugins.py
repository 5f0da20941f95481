"""``reasonrl plugins``: list, show, check and create plugins."""

from collections.abc import Iterator, Sequence
from dataclasses import MISSING, Field, fields, is_dataclass
from typing import TYPE_CHECKING, Annotated, Literal, get_type_hints

import typer

from reasonrl.cli.streams import print_json
from reasonrl.cli.table import for_terminal, table, terminal_width, wrap
from reasonrl.cli.usage import Commands, PluginFiles
from reasonrl.contracts.specs import AnySpec, RewardSpec
from reasonrl.text import clip

if TYPE_CHECKING:
    from reasonrl.plugins import PluginRecord, Plugins

MAX_NAME = 200
"""Characters of a name, which may be of any length."""

app = Commands(help="List, inspect, check and create plugins.")


@app.command(name="list")
def list_plugins(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False, plugin: PluginFiles = None
) -> None:
    """List installed plugins with their status; broken ones with the reason."""
    from reasonrl.plugins import load_plugins

    plugins = load_plugins(files=plugin or [])
    if as_json:
        print_json([record.as_dict() for record in plugins.records])
        return
    rows = [(r.name, r.distribution, r.version, r.status, _in_short(r.provides)) for r in plugins.records]
    for line in table(("NAME", "DISTRIBUTION", "VERSION", "STATUS", "PROVIDES"), rows):
        typer.echo(line)
    for record in plugins.records:
        if record.error:
            typer.echo(wrap(f"{clip(record.name, MAX_NAME)}: {record.error}"))


def _in_short(provides: Sequence[str]) -> str:
    """``kind name`` for each component, or a count for a kind with more than three; `plugins show` lists them all."""
    kinds: dict[str, list[str]] = {}
    for component in provides:
        kinds.setdefault(component.partition(" ")[0], []).append(clip(component, MAX_NAME))
    parts = [part for kind, all_ in kinds.items() for part in (all_ if len(all_) <= 3 else [f"{len(all_)} {kind}s"])]
    return ", ".join(parts) or "-"


@app.command()
def show(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Plugin name, as in `plugins list`.")],
    plugin: PluginFiles = None,
) -> None:
    """Show a plugin: its hooks, its components and their options, and errors."""
    from reasonrl.plugins import find_records, load_plugins

    plugins = load_plugins(files=plugin or [])
    for record in find_records(plugins, name):
        for line in _describe(plugins, record):
            typer.echo(line)


@app.command()
def check(
    target: Annotated[str, typer.Argument(metavar="NAME|PATH", help="Plugin name, plugin file or project folder.")],
    options: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Component options, such as task.add.count=4.")
    ] = None,
    task: Annotated[
        str | None, typer.Option("--task", metavar="TASK", help="Task to test the plugin's rewards on.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    plugin: PluginFiles = None,
) -> None:
    """Run the conformance checks on a plugin. Exits with status 1 if one fails."""
    from reasonrl.cli.plugins_check import run_check

    run_check(target, options or [], task, as_json, plugin or [])


@app.command()
def new(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Such as word-count, for the package reasonrl_word_count.")
    ],
    kind: Annotated[
        Literal["task", "reward", "algorithm", "rollout_backend", "observer", "model", "recipes"],
        typer.Option(
            "--kind",
            metavar="KIND",
            help="What the plugin provides: task, reward, algorithm, rollout_backend, observer, model or recipes.",
        ),
    ] = "task",
    multi_turn: Annotated[
        bool, typer.Option("--multi-turn", help="A task that replies to the model, for conversations.")
    ] = False,
    folder: Annotated[str, typer.Option("--dir", metavar="DIR", help="Parent folder of the project.")] = ".",
) -> None:
    """Create a working plugin project: package, recipe, tests."""
    from reasonrl.cli.plugins_new import run_new

    run_new(name, kind, folder, multi_turn=multi_turn)


def _describe(plugins: "Plugins", record: "PluginRecord") -> Iterator[str]:
    yield f"{clip(record.label, MAX_NAME)}: {record.status}"
    yield f"  from {clip(record.value, MAX_NAME)}"
    if record.hooks:
        yield wrap(f"hooks: {', '.join(record.hooks)}", indent="  ")
    for text in (record.error, *record.deprecations):
        if text:
            yield wrap(text, indent="  ")
    if record.traceback:
        yield for_terminal(record.traceback.rstrip(), "  ")
    for providers in plugins.provided.values():
        for provided in providers:
            if provided.record == record:
                yield ""
                yield from _component(provided.spec)


def _component(spec: AnySpec) -> Iterator[str]:
    yield f"{spec.kind} {clip(spec.name, MAX_NAME)}"
    yield wrap(spec.summary, indent="  ")
    if rewards := getattr(spec, "default_rewards", ()):
        yield f"  default rewards: {', '.join(rewards)}"
    if papers := getattr(spec, "papers", ()):
        yield wrap(f"papers: {', '.join(papers)}", indent="  ")
    if isinstance(spec, RewardSpec):
        yield from _reward(spec)
    if path := getattr(spec, "path", None):
        yield f"  {path}"
    rows = list(_options(getattr(spec, "config", None), ""))
    if rows:
        yield from ("  " + line for line in table(("OPTION", "DEFAULT", "HELP"), rows, width=terminal_width() - 2))


def _reward(spec: RewardSpec) -> Iterator[str]:
    low, high = spec.range
    yield f"  range: {low:g} to {high:g}"
    if spec.isolation == "process":
        yield f"  runs in a separate process, with a timeout of {spec.timeout_s:g} s per completion"


def _options(config: type | None, prefix: str) -> Iterator[tuple[str, str, str]]:
    if config is None:
        return
    hints = get_type_hints(config)
    for option in fields(config):
        nested = hints[option.name]
        if isinstance(nested, type) and is_dataclass(nested):
            yield from _options(nested, f"{prefix}{option.name}.")
        else:
            yield prefix + option.name, _default(option), str(option.metadata.get("help", ""))


def _default(option: "Field[object]") -> str:
    if option.default is not MISSING:
        return "null" if option.default is None else str(option.default)
    return str(option.default_factory()) if option.default_factory is not MISSING else "required"

"""Writes ``docs/reference/`` from the code, and the tables of ``docs/algorithms/`` from the code and ``formulas.yaml``.

python scripts/gen_docs.py            rewrite what has changed
python scripts/gen_docs.py --check    write nothing; exit status 1 if a page is out of date
"""

import inspect
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from algorithm_pages import algorithms
from doc_tables import code, option_rows, table, text
from recipe_pages import gallery

from reasonrl.cli.usage import Usage, usage_of
from reasonrl.contracts.metric_keys import CORE_METRICS
from reasonrl.contracts.metrics import MetricDef
from reasonrl.plugins import Kind, Plugins, load_plugins
from reasonrl.plugins.directory import read_directory
from reasonrl.recipe.schema import Recipe, SftRecipe

DOCS = Path(__file__).resolve().parents[1] / "docs"
NOTICE = "<!-- Written by scripts/gen_docs.py from the code; change the code, then run it. -->"
COMPONENT_KINDS: tuple[Kind, ...] = ("task", "reward", "algorithm", "rollout_backend")


def pages() -> dict[str, str]:
    """Path below ``docs`` -> text of every generated page. Only the bundled plugins are described.

    Raises:
        ValueError: if a page of an algorithm, or what its table names, is missing.
    """
    plugins = load_plugins(environ={"REASONRL_PLUGINS": "reasonrl"})
    bodies = {
        "cli.md": cli(),
        "config.md": config(plugins),
        "metrics.md": metrics(plugins),
        "plugins.md": directory(plugins),
        "recipes.md": gallery(),
    }
    written = {name: f"{NOTICE}\n\n" + "\n".join(lines).rstrip() + "\n" for name, lines in bodies.items()}
    return {f"reference/{name}": page for name, page in written.items()} | algorithms(DOCS, plugins)


def main(arguments: Sequence[str]) -> int:
    """Rewrite, or check, every page."""
    is_check = "--check" in arguments
    try:
        stale = {name: page for name, page in pages().items() if _read(DOCS / name) != page}
    except ValueError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    if is_check:
        for name in stale:
            sys.stderr.write(f"docs/{name} is out of date; run python scripts/gen_docs.py\n")
        return 1 if stale else 0
    for name, page in stale.items():
        (DOCS / name).parent.mkdir(parents=True, exist_ok=True)
        (DOCS / name).write_text(page, encoding="utf-8")
        sys.stdout.write(f"wrote docs/{name}\n")
    return 0


def _read(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.is_file() else None


# Command line


def cli() -> Iterator[str]:
    """Every command, in the order of ``--help``, which is made of the same."""
    from typer.main import get_command

    from reasonrl.cli.app import app

    yield from (
        "# Command line",
        "",
        "`reasonrl COMMAND --help`, or `-h`, shows the same in the terminal.",
        "",
    )
    yield "`python -m reasonrl` is equivalent; multi-process launchers need this form."
    yield "`reasonrl`, `reasonrl plugins`, `reasonrl recipes` and `reasonrl tasks` without arguments list commands."
    yield from (
        "",
        "Exit status: 0 done, 1 the run failed, 2 wrong input, 3 the run folder is in use, 130 interrupted.",
        "",
    )
    yield from _group(get_command(app), "reasonrl")


def _group(group: Any, path: str) -> Iterator[str]:
    groups = {name: command for name, command in group.commands.items() if hasattr(command, "commands")}
    for name, command in group.commands.items():
        if name not in groups:
            yield from _command(usage_of(command, f"{path} {name}"), f"{path} {name}")
    for name, command in groups.items():
        yield from _group(command, f"{path} {name}")


def _command(usage: Usage, path: str) -> Iterator[str]:
    yield from (f"## {path}", "", usage.text, "", "```text", usage.line, "```", "")
    yield from table(("argument", "meaning"), [(code(e.name), text(e.help)) for e in usage.arguments])
    yield from table(
        ("option", "default", "meaning"),
        [(code(e.name), code(e.default) if e.default else "", text(e.help)) for e in usage.options],
    )


# Recipes


def config(plugins: Plugins) -> Iterator[str]:
    """Every key of a recipe: the core's sections, then the options of each component."""
    yield from ("# Recipe keys", "", "See [Recipes](../concepts/recipes.md) for an introduction.", "")
    yield from _sections(Recipe, "A training recipe")
    yield from _sections(SftRecipe, "An SFT recipe", known=set(_nested(Recipe)))
    for kind in COMPONENT_KINDS:
        for spec in plugins.specs(kind):
            yield from (f"## {kind.replace('_', ' ').capitalize()} `{spec.name}`", "", text(spec.summary), "")
            rows = list(option_rows(spec.config, ""))
            yield from table(("key", "type", "default", "meaning"), rows)
            if not rows:
                yield from ("No options.", "")


def _sections(cls: type, title: str, known: set[type] = frozenset()) -> Iterator[str]:  # type: ignore[assignment]
    """A recipe class, then each section that is not ``known`` from another recipe class."""
    yield from (f"## {title}", "", text(inspect.getdoc(cls)), "")
    yield from table(("key", "type", "default", "meaning"), option_rows(cls, "", is_flat=True))
    for section, where in _nested(cls).items():
        if section not in known:
            yield from (f"### {code(where)}", "", text(inspect.getdoc(section)), "")
            yield from table(("key", "type", "default", "meaning"), option_rows(section, "", is_flat=True))


def _nested(cls: type, prefix: str = "") -> dict[type, str]:
    """Section class -> where it stands in the recipe, depth first."""
    found: dict[type, str] = {}
    for field in fields(cls):
        for inner in _dataclasses(get_type_hints(cls)[field.name]):
            is_mapping = get_origin(get_type_hints(cls)[field.name]) is dict
            where = f"{prefix}{field.name}" + (".<name>" if is_mapping else "")
            found |= {inner: where, **_nested(inner, where + ".")}
    return found


def _dataclasses(hint: Any) -> list[type]:
    if isinstance(hint, type) and is_dataclass(hint):
        return [hint]
    return [cls for part in get_args(hint) for cls in _dataclasses(part)]


# Metrics


def metrics(plugins: Plugins) -> Iterator[str]:
    """Every key that a run can write, with unit and meaning."""
    yield from (
        "# Metrics",
        "",
        "The keys of `metrics.jsonl`. Words in angle brackets are placeholders for names in the recipe.",
    )
    yield from ("Keys that do not apply to a step are omitted from its line.", "", "## Every run", "")
    yield from _metric_table(CORE_METRICS)
    for kind in COMPONENT_KINDS:
        for spec in plugins.specs(kind):
            if spec.metrics:
                yield from (f"## {kind.replace('_', ' ').capitalize()} `{spec.name}`", "")
                yield from _metric_table(spec.metrics)


def _metric_table(definitions: Iterable[MetricDef]) -> Iterator[str]:
    yield from table(("key", "unit", "meaning"), [(code(d.key), text(d.unit), text(d.meaning)) for d in definitions])


# Plugin directory


def directory(plugins: Plugins) -> Iterator[str]:
    """The bundled plugins, then those of ``reasonrl/plugins/directory.yaml``."""
    yield from ("# Plugin directory", "", "Bundled with reasonrl:", "")
    bundled = [record for record in plugins.records if record.distribution == "reasonrl"]
    offers = [(code(r.name), _provided(r.provides)) for r in bundled]
    yield from table(("plugin", "provides"), offers)
    yield from ("Separate packages:", "")
    rows = [
        (code(e["distribution"]), text(_offers(e["offers"])), text(e["summary"]), text(e["where"]))
        for e in read_directory()
    ]
    yield from table(("package", "provides", "summary", "where"), rows)
    yield "To list yours, add an entry to `reasonrl/plugins/directory.yaml`; see [Publish a plugin](../publish.md)."


def _provided(names: Sequence[str]) -> str:
    """What a plugin provides; its recipes are counted, since the gallery shows them."""
    recipes = [name for name in names if name.startswith("recipe ")]
    shown = [text(name) for name in names if name not in recipes]
    return ", ".join([*shown, *([f"[{len(recipes)} recipes](recipes.md)"] if recipes else [])])


def _offers(names: Mapping[str, Sequence[str]]) -> str:
    return "; ".join(f"{kind}{'s' * (len(some) > 1)} {', '.join(some)}" for kind, some in names.items())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

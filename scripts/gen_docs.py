"""Writes ``docs/reference/`` from the code, and the tables of ``docs/algorithms/`` from the code and ``formulas.yaml``.

python scripts/gen_docs.py            rewrite what has changed
python scripts/gen_docs.py --check    write nothing; exit status 1 if a page is out of date
"""

import importlib
import inspect
import re
import sys
import types
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import MISSING, Field, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import formulas
from formulas import Formula

from reasonrl import AlgorithmSpec
from reasonrl.cli.usage import Usage, usage_of
from reasonrl.contracts.metric_keys import CORE_METRICS
from reasonrl.contracts.metrics import MetricDef
from reasonrl.plugins import Kind, Plugins, load_plugins
from reasonrl.plugins.directory import read_directory
from reasonrl.recipe.schema import Recipe, SftRecipe

DOCS = Path(__file__).resolve().parents[1] / "docs"
NOTICE = "<!-- Written by scripts/gen_docs.py from the code; change the code, then run it. -->"
PART = re.compile(r"(?<=<!-- generated: )(\w+)( -->\n\n).*?(?=<!-- end -->)", re.DOTALL)
"""What is generated in a page that is otherwise written by hand."""
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
    }
    written = {name: f"{NOTICE}\n\n" + "\n".join(lines).rstrip() + "\n" for name, lines in bodies.items()}
    return {f"reference/{name}": page for name, page in written.items()} | algorithms(plugins)


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


# Markdown


def text(value: object) -> str:
    """Plain text as Markdown that shows it literally, also inside a table; ``code`` stays code."""
    parts = " ".join(str(value).split()).replace("``", "`").split("`")
    return "`".join(part if index % 2 else _literal(part) for index, part in enumerate(parts))


def _literal(words: str) -> str:
    for char, escaped in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ("|", "&#124;"), ("*", "&#42;")):
        words = words.replace(char, escaped)
    return words


def code(value: object) -> str:
    """A code span that a bar inside does not break out of a table cell."""
    return f"<code>{_literal(str(value))}</code>" if "|" in str(value) else f"`{value}`"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """A table, or nothing without rows."""
    body = ["| " + " | ".join(row) + " |" for row in rows]
    if body:
        yield "| " + " | ".join(header) + " |"
        yield "|" + "---|" * len(header)
        yield from body
        yield ""


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
            rows = list(_rows(spec.config, ""))
            yield from table(("key", "type", "default", "meaning"), rows)
            if not rows:
                yield from ("No options.", "")


def _sections(cls: type, title: str, known: set[type] = frozenset()) -> Iterator[str]:  # type: ignore[assignment]
    """A recipe class, then each section that is not ``known`` from another recipe class."""
    yield from (f"## {title}", "", text(inspect.getdoc(cls)), "")
    yield from table(("key", "type", "default", "meaning"), _rows(cls, "", is_flat=True))
    for section, where in _nested(cls).items():
        if section not in known:
            yield from (f"### {code(where)}", "", text(inspect.getdoc(section)), "")
            yield from table(("key", "type", "default", "meaning"), _rows(section, "", is_flat=True))


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


def _rows(cls: type, prefix: str, *, is_flat: bool = False) -> Iterator[tuple[str, str, str, str]]:
    hints = get_type_hints(cls)
    for field in fields(cls):
        hint, help_text = hints[field.name], text(field.metadata.get("help", ""))
        if isinstance(hint, type) and is_dataclass(hint) and not is_flat:
            yield from _rows(hint, f"{prefix}{field.name}.")
        else:
            name = code(prefix + field.name)
            yield name, text(type_name(hint)), _field_default(field), help_text


def type_name(hint: Any) -> str:
    """A type as a reader of YAML says it."""
    origin, parts = get_origin(hint), get_args(hint)
    if origin is Literal:
        return " or ".join(map(str, parts))
    if origin in (Union, types.UnionType):
        return " or ".join(type_name(part) for part in parts)
    if origin is dict or (isinstance(hint, type) and is_dataclass(hint)):
        return "mapping"
    if origin is list:
        return f"list of {type_name(parts[0])}"
    names = {str: "text", int: "int", float: "number", bool: "true or false", type(None): "null"}
    return names.get(hint, str(hint))


def _field_default(field: "Field[Any]") -> str:
    if field.default_factory is not MISSING:
        made = field.default_factory()
        return "its defaults" if is_dataclass(made) else code(_flow(made))
    return "required" if field.default is MISSING else code(_flow(field.default))


def _flow(value: Any) -> str:
    """A value as YAML on one line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_flow(entry)}" for key, entry in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_flow, value)) + "]"
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    return str(value) or '""'


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
    offers = [(code(r.name), text(", ".join(r.provides))) for r in bundled]
    yield from table(("plugin", "provides"), offers)
    yield from ("Separate packages:", "")
    rows = [
        (code(e["distribution"]), text(_offers(e["offers"])), text(e["summary"]), text(e["where"]))
        for e in read_directory()
    ]
    yield from table(("package", "provides", "summary", "where"), rows)
    yield "To list yours, add an entry to `reasonrl/plugins/directory.yaml`; see [Publish a plugin](../publish.md)."


def _offers(names: Mapping[str, Sequence[str]]) -> str:
    return "; ".join(f"{kind}{'s' * (len(some) > 1)} {', '.join(some)}" for kind, some in names.items())


# Algorithms


def algorithms(plugins: Plugins) -> dict[str, str]:
    """The pages of ``docs/algorithms`` with their generated parts."""
    entries, specs = formulas.read(), plugins.specs("algorithm")
    found = {"algorithms/index.md": _filled("algorithms/index.md", index_parts(entries, specs))}
    for spec in specs:
        name = f"algorithms/{spec.name}.md"
        found[name] = _filled(name, algorithm_parts(entries, spec))
    return found


def _filled(name: str, parts: Mapping[str, Iterable[str]]) -> str:
    page = _read(DOCS / name)
    if page is None:
        raise ValueError(f"docs/{name} is missing: every algorithm has a page of its own; see CONTRIBUTING.md")
    if sorted(match[1] for match in PART.finditer(page)) != sorted(parts):
        wanted = ", ".join(f"<!-- generated: {part} -->" for part in parts)
        raise ValueError(f"docs/{name}: expected once each, closed by <!-- end -->: {wanted}")
    return PART.sub(lambda match: match[1] + match[2] + "\n".join([*parts[match[1]], ""]), page)


def index_parts(entries: Sequence[Formula], specs: Sequence[AlgorithmSpec]) -> dict[str, Iterable[str]]:
    """The table of the algorithms, and that of the functions that they share."""
    users = {spec.name: formulas.uses(_class(spec)) for spec in specs}
    rows = [(_link(spec.name), *_proof(own), _recipes(spec)) for spec in specs for own in _own(entries, spec)[:1]]
    shared = []
    for entry in entries:
        if entry.module.startswith("reasonrl."):
            using = [name for name, used in users.items() if entry.name in used]
            used_by = "all" if len(using) == len(users) else ", ".join(map(_link, using))
            shared.append((entry.formula, *_proof(entry), used_by))
    header = ("paper, equation", "function", "oracle", "tests")
    return {
        "algorithms": table(("algorithm", *header, "recipe"), rows),
        "functions": table(("formula", *header, "used by"), shared),
    }


def algorithm_parts(entries: Sequence[Formula], spec: AlgorithmSpec) -> dict[str, Iterable[str]]:
    """Every option of an algorithm; and its paper, code, oracle, tests and recipe, then those of its parts."""
    whole, *parts = _own(entries, spec)
    used = formulas.uses(_class(spec))
    parts += [entry for entry in entries if entry.module.startswith("reasonrl.") and entry.name in used]
    oracle, _, function = whole.oracle.partition(".")
    lines = [
        f"- Paper: {_papers(whole)}",
        f"- Code: `{whole.name}` in `{whole.file}`",
        f"- Oracle: `{function}` in `tests/reference/{oracle}.py`",
        f"- Tests: {', '.join(f'`tests/{test}`' for test in whole.tests)}",
        f"- Recipe: {_recipes(spec)}",
        "",
    ]
    header = ("formula", "paper, equation", "function", "oracle", "tests")
    return {
        "options": table(("key", "type", "default", "meaning"), _rows(spec.config, "")),
        "proof": [*lines, *table(header, [(part.formula, *_proof(part)) for part in parts])],
    }


def _own(entries: Sequence[Formula], spec: AlgorithmSpec) -> list[Formula]:
    """The entry of the algorithm's class, then those of its methods."""
    found = [entry for entry in entries if _belongs(entry, spec)]
    if not found or found[0].function != spec.factory or not found[0].oracle:
        raise ValueError(f"{formulas.SOURCE.name}: no entry with an oracle for {spec.factory}, algorithm {spec.name!r}")
    return found


def _belongs(entry: Formula, spec: AlgorithmSpec) -> bool:
    return entry.function == spec.factory or entry.function.startswith(f"{spec.factory}.")


def _class(spec: AlgorithmSpec) -> type:
    module, _, name = str(spec.factory).partition(":")
    cls = getattr(importlib.import_module(module), name)
    assert isinstance(cls, type)
    return cls


def _proof(entry: Formula) -> tuple[str, str, str, str]:
    tests = ", ".join(f"`{test.partition('::')[2]}`" for test in entry.tests)
    oracle = f"`{entry.oracle}`" if entry.oracle else "by hand"
    module = entry.module.rpartition(".")[2]
    function = f"{module}.{entry.name}" if entry.module.startswith("reasonrl.") else entry.name
    return _papers(entry), f"`{function}`", oracle, tests


def _papers(entry: Formula) -> str:
    found = [formulas.PAPER.fullmatch(paper) for paper in entry.paper]
    return "; ".join(
        f"[{m['id']}](https://arxiv.org/abs/{m['id']})" + (f", {m['where']}" if m["where"] else "") for m in found if m
    )


def _recipes(spec: AlgorithmSpec) -> str:
    found = formulas.recipes(spec.name)
    if not found:
        raise ValueError(f"no recipe below recipes/ has algorithm: {{name: {spec.name}}}")
    return ", ".join(f"`{file}`" for file in found)


def _link(name: str) -> str:
    return f"[`{name}`]({name}.md)"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

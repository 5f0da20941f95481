"""The generated parts of ``docs/algorithms/``: every option of an algorithm, and what each of its formulas rests on."""

import importlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import formulas
import yaml
from doc_tables import option_rows, table
from formulas import Formula

from reasonrl import AlgorithmSpec
from reasonrl.plugins import Plugins

PART = re.compile(r"(?<=<!-- generated: )(\w+)( -->\n\n).*?(?=<!-- end -->)", re.DOTALL)
"""What is generated in a page that is otherwise written by hand."""
PART_HEADER = ("formula, function", "paper, equation", "oracle", "tests")


def algorithms(docs: Path, plugins: Plugins) -> dict[str, str]:
    """Path below ``docs`` -> text of the pages of the algorithms, with their generated parts.

    Raises:
        ValueError: if a page, or what its table names, is missing.
    """
    entries, specs = formulas.read(), plugins.specs("algorithm")
    found = {"algorithms/index.md": _filled(docs, "algorithms/index.md", index_parts(entries, specs))}
    for spec in specs:
        name = f"algorithms/{spec.name}.md"
        found[name] = _filled(docs, name, algorithm_parts(entries, spec))
    return found


def _filled(docs: Path, name: str, parts: Mapping[str, Iterable[str]]) -> str:
    if not (docs / name).is_file():
        raise ValueError(f"docs/{name} is missing: every algorithm has a page, see CONTRIBUTING.md")
    page = (docs / name).read_text(encoding="utf-8")
    if sorted(match[1] for match in PART.finditer(page)) != sorted(parts):
        wanted = ", ".join(f"<!-- generated: {part} -->" for part in parts)
        raise ValueError(f"docs/{name}: expected once each, closed by <!-- end -->: {wanted}")
    return PART.sub(lambda match: match[1] + match[2] + "\n".join([*parts[match[1]], ""]), page)


def index_parts(entries: Sequence[Formula], specs: Sequence[AlgorithmSpec]) -> dict[str, Iterable[str]]:
    """The table of the algorithms, each with its first test, and that of the functions that they share."""
    users = {spec.name: formulas.uses(_class(spec)) for spec in specs}
    rows = []
    for spec in specs:
        whole = _own(entries, spec)[0]
        _, papers, oracle, tests = _part(whole)
        name, test = f"{_link(spec.name)}<br>`{whole.name}`", tests.partition("<br>")[0]
        rows.append((name, papers, oracle, test, _codes(map(_name, _recipes(spec)))))
    shared = []
    for entry in entries:
        if entry.module.startswith("reasonrl."):
            using = [name for name, used in users.items() if entry.name in used]
            shared.append((*_part(entry), "all" if len(using) == len(users) else ", ".join(map(_link, using))))
    return {
        "algorithms": table(("algorithm, class", "paper, equation", "oracle", "test", "recipe"), rows),
        "functions": table((*PART_HEADER, "used by"), shared),
    }


def algorithm_parts(entries: Sequence[Formula], spec: AlgorithmSpec) -> dict[str, Iterable[str]]:
    """Every option of an algorithm; and its paper, code, oracle, tests and recipe, then those of its parts."""
    whole, *parts = _own(entries, spec)
    used = formulas.uses(_class(spec))
    parts += [entry for entry in entries if entry.module.startswith("reasonrl.") and entry.name in used]
    oracle, _, function = whole.oracle.partition(".")
    lines = [
        f"- Paper: {'; '.join(_papers(whole))}",
        f"- Code: `{whole.name}` in `{whole.file}`",
        f"- Oracle: `{function}` in `tests/reference/{oracle}.py`",
        f"- Tests: {_codes((f'tests/{test}' for test in whole.tests), ', ')}",
        f"- Recipe: {_codes(map(str, _recipes(spec)), ', ')}",
        "",
    ]
    return {
        "options": table(("key", "type", "default", "meaning"), option_rows(spec.config, "")),
        "proof": [*lines, *table(PART_HEADER, map(_part, parts))],
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


def _part(entry: Formula) -> tuple[str, str, str, str]:
    """Cells: the formula's name above the function, paper and equation, oracle, tests."""
    module = entry.module.rpartition(".")[2]
    function = f"{module}.{entry.name}" if entry.module.startswith("reasonrl.") else entry.name
    oracle = f"`{entry.oracle}`" if entry.oracle else "by hand"
    tests = _codes(test.partition("::")[2] for test in entry.tests)
    return f"{entry.formula}<br>`{function}`", "<br>".join(_papers(entry)), oracle, tests


def _papers(entry: Formula) -> Iterator[str]:
    for paper in entry.paper:
        number, _, where = paper.removeprefix("arXiv:").partition(", ")
        yield f"[{number}](https://arxiv.org/abs/{number})" + (f", {where}" if where else "")


def _codes(names: Iterable[str], between: str = "<br>") -> str:
    return between.join(f"`{name}`" for name in names)


def _name(recipe: Path) -> str:
    return str(yaml.safe_load((formulas.ROOT / recipe).read_text(encoding="utf-8"))["name"])


def _recipes(spec: AlgorithmSpec) -> list[Path]:
    found = formulas.recipes(spec.name)
    if not found:
        raise ValueError(f"no recipe below recipes/ has algorithm: {{name: {spec.name}}}")
    return found


def _link(name: str) -> str:
    return f"[`{name}`]({name}.md)"

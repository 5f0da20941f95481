"""The picture and the walks of docs/architecture.md are those of the code."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest
from architecture.test_imports import CORE, ORDER, ROOT, file_part, imports, modules, part_of

PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
SECTIONS = {text.partition("\n")[0]: text for text in PAGE.split("\n## ")}
WALK = re.compile(r"^\| `([\w./-]+)` \| `([\w.]+)` \|", re.MULTILINE)


def read_layers(page: str) -> list[set[str]]:
    """Packages by row, the top row first."""
    picture = page.partition('```text title="layers"\n')[2].partition("```")[0]
    return [set(line.partition("|")[0].split()) for line in picture.splitlines()]


@cache
def package_imports() -> dict[str, set[str]]:
    graph: dict[str, set[str]] = {name: set() for name in ORDER}
    for path in modules(CORE):
        graph[file_part(path)] |= {part for dotted in imports(path) if (part := part_of(dotted))}
    return {name: targets - {name} for name, targets in graph.items()}


@cache
def height(package: str) -> int:
    """Rows below a package: the longest way down along its imports."""
    return max((height(target) + 1 for target in package_imports()[package]), default=0)


def test_the_picture_is_that_of_the_imports() -> None:
    rows = [{name for name in ORDER if height(name) == level} for level in range(max(map(height, ORDER)) + 1)]
    assert read_layers(PAGE) == rows[::-1]


def test_a_package_in_the_wrong_row_is_seen() -> None:
    moved = PAGE.replace("trainer   ", "", 1).replace("runs    ", "runs trainer", 1)
    assert read_layers(moved) != read_layers(PAGE)


def defined(path: Path) -> set[str]:
    """Functions, and methods as ``Class.method``."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    methods = {
        f"{node.name}.{child.name}"
        for node in tree.body
        if isinstance(node, ast.ClassDef)
        for child in node.body
        if isinstance(child, ast.FunctionDef)
    }
    return methods | {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize(("walk", "most"), [("One training step", 3), ("A save", 5), ("A resume", 5)])
def test_a_walk_leads_through_few_files_and_real_functions(walk: str, most: int) -> None:
    steps = WALK.findall(SECTIONS[walk])
    assert len(steps) >= 5
    assert len({file for file, _ in steps}) <= most
    assert not [(file, name) for file, name in steps if name not in defined(ROOT / file)]


@pytest.mark.parametrize("walk", ["One training step", "A save"])
def test_each_function_of_a_walk_is_called_by_an_earlier_one(walk: str) -> None:
    steps = WALK.findall(SECTIONS[walk])
    for number, (_, name) in enumerate(steps[1:], 1):
        called = re.compile(rf"\b{name.rpartition('.')[2]}\(")
        assert any(called.search((ROOT / file).read_text(encoding="utf-8")) for file, _ in steps[:number]), name


def test_the_files_around_the_step_exist() -> None:
    table = SECTIONS["What surrounds the step"]
    named = re.findall(r"`(\w+\.py)`", table)
    assert len(named) > 8
    assert not [name for name in named if not (CORE / "runs" / name).is_file()]

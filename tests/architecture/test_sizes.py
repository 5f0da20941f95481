"""Files and functions stay small enough to be read."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted([*(ROOT / "reasonrl").rglob("*.py"), *(ROOT / "plugins").rglob("*.py")])
MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60


def functions(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Name and lines, decorators and docstring included, of every function."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            assert node.end_lineno is not None
            first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
            yield node.name, node.end_lineno - first + 1


def test_there_are_files_to_measure() -> None:
    assert len(FILES) > 50


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_sizes(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    assert len(source.splitlines()) <= MAX_FILE_LINES
    too_long = {name: lines for name, lines in functions(ast.parse(source)) if lines > MAX_FUNCTION_LINES}
    assert not too_long

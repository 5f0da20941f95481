"""Files and functions stay small enough to be read."""

import ast
from collections.abc import Iterator
from pathlib import Path

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


def test_files_are_short() -> None:
    lines = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in FILES}
    assert not {path: count for path, count in lines.items() if count > MAX_FILE_LINES}


def test_functions_are_short() -> None:
    found = [
        (path, name, lines) for path in FILES for name, lines in functions(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert not [entry for entry in found if entry[2] > MAX_FUNCTION_LINES]

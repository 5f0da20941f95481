"""Rows of HumanEval, MBPP and APPS, as problems of one form.

Tests are taken apart, so that each counts by itself and runs where the program cannot reach it.
"""

import ast
import builtins
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from reasonrl import DataRow

SAME = """
def _same(got, expected):
    def plain(value):
        if isinstance(value, (list, tuple)):
            return [plain(item) for item in value]
        if isinstance(value, dict):
            return {str(key): plain(item) for key, item in value.items()}
        return value
    got, expected = plain(got), plain(expected)
    return got == expected or isinstance(expected, list) and len(expected) == 1 and got == expected[0]
"""
_NO_TEST = (
    ast.Assign,
    ast.AnnAssign,
    ast.AugAssign,
    ast.FunctionDef,
    ast.ClassDef,
    ast.Import,
    ast.ImportFrom,
    ast.Pass,
)


class ShapeError(ValueError):
    """A row that holds no problem with tests."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """A problem and its tests. ``info`` is what the reward needs."""

    question: str
    stub: str = ""
    """The beginning of a function that a base model continues."""
    starter: str = ""
    shown: tuple[str, ...] = ()
    entry: str = ""
    solution: str = ""
    """A program that is right; of a stub, the rest of it."""
    info: dict[str, Any] = field(default_factory=dict)

    @property
    def program(self) -> str:
        """The whole program of the solution."""
        return self.stub + self.solution if self.stub and self.solution else self.solution


def read(row: DataRow, shape: str, max_tests: int, shown_tests: int) -> Row:
    """Read a row.

    Raises:
        ShapeError: if it has no tests, or tests that cannot be read. RecipeError: if a column is missing.
    """
    chosen = _shape_of(row) if shape == "auto" else shape
    try:
        if chosen == "humaneval":
            return _humaneval(row, max_tests)
        return _mbpp(row, max_tests, shown_tests) if chosen == "mbpp" else _apps(row, max_tests)
    except (SyntaxError, RecursionError, MemoryError) as err:
        raise ShapeError(f"tests are not Python: {type(err).__name__}") from None


def _shape_of(row: DataRow) -> str:
    if row.has("test_list"):
        return "mbpp"
    if row.has("entry_point"):
        return "humaneval"
    if row.has("input_output"):
        return "apps"
    raise row.error(
        "no tests; expected the columns of HumanEval (prompt, entry_point, test), MBPP (text, code, test_list) or "
        "APPS (question, input_output)"
    )


def _humaneval(row: DataRow, max_tests: int) -> Row:
    stub, entry = row.text("prompt"), row.text("entry_point").strip()
    given = _before(stub, entry)
    setup, tests = _split_check(row.text("test"), entry)
    solution = row.text("canonical_solution") if row.has("canonical_solution") else ""
    info = _function(entry, given, f"{given}\n{setup}", {"candidate": entry}, [entry], tests[:max_tests])
    return Row(question=stub, stub=stub, entry=entry, solution=solution, info=info)


def _before(stub: str, entry: str) -> str:
    """What the prompt defines before the function: imports and helpers, which tests use too."""
    try:
        tree = ast.parse(stub)
    except SyntaxError:
        tree = ast.parse(f"{stub.rstrip()}\n    pass\n")
    nodes = [node for node in tree.body if getattr(node, "name", "") != entry]
    return "\n".join(ast.unparse(node) for node in nodes)


def _split_check(test: str, entry: str) -> tuple[str, list[str]]:
    """(setup, tests) of ``def check(candidate)``: each statement that tests is one; those before it go along."""
    tree = ast.parse(test)
    checks = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "check"]
    if not checks or len(checks[-1].args.args) != 1:
        raise ShapeError("no function check(candidate)")
    check, own = checks[-1], checks[-1].args.args[0].arg
    setup = "\n".join(ast.unparse(node) for node in tree.body if node is not check and not _calls(node, "check"))
    if own != "candidate":
        setup += f"\n{own} = candidate"
    if any(isinstance(node, ast.Return | ast.Global | ast.Nonlocal | ast.Yield) for node in _own_nodes(check)):
        return f"{setup}\n{ast.unparse(check)}", [f"check({own})"]
    tests, before = [], list[str]()
    for node in check.body:
        if _is_docstring(node) or _is_vacuous(node):
            continue
        before.append(ast.unparse(node))
        if not isinstance(node, _NO_TEST):
            tests.append("\n".join(before))
            before = []
    if not tests:
        raise ShapeError("check(candidate) tests nothing")
    return setup, tests


def _own_nodes(function: ast.FunctionDef) -> Iterable[ast.AST]:
    """All nodes of a function but those of functions inside it."""
    waiting: list[ast.AST] = list(function.body)
    while waiting:
        node = waiting.pop()
        yield node
        if not isinstance(node, ast.FunctionDef | ast.Lambda | ast.ClassDef):
            waiting.extend(ast.iter_child_nodes(node))


def _calls(node: ast.AST, name: str) -> bool:
    return any(isinstance(n, ast.Call) and isinstance(n.func, ast.Name) and n.func.id == name for n in ast.walk(node))


def _is_docstring(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _is_vacuous(node: ast.AST) -> bool:
    """``assert True``: passed by any program."""
    return isinstance(node, ast.Assert) and isinstance(node.test, ast.Constant)


def _mbpp(row: DataRow, max_tests: int, shown_tests: int) -> Row:
    question = row.text("text" if row.has("text") else "prompt")
    code = row.text("code") if row.has("code") else ""
    tests = [text for text in _texts(row, "test_list") if text.strip()][:max_tests]
    given_setup = [row.text("test_setup_code", allow_empty=True)] if row.has("test_setup_code") else []
    setup = [*(_texts(row, "test_imports") if row.has("test_imports") else []), *given_setup]
    tree = ast.parse(code)
    setup = [ast.unparse(n) for n in tree.body if isinstance(n, ast.Import | ast.ImportFrom)] + setup
    defined = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    names = _free_names(tests, "\n".join(setup), defined)
    if not tests or not names:
        raise ShapeError("no tests" if not tests else "the tests call no function of the program")
    info = _function(names[0], "", "\n".join(setup), {}, names, tests)
    return Row(question=question, shown=tuple(tests[:shown_tests]), entry=names[0], solution=code, info=info)


def _texts(row: DataRow, column: str) -> list[str]:
    value = row.value(column)
    if not isinstance(value, list | tuple) or not all(isinstance(item, str) for item in value):
        raise row.error(f"column {column!r} must be a list of text, got {value!r:.60}")
    return [str(item) for item in value]


def _free_names(tests: list[str], setup: str, defined: set[str]) -> list[str]:
    """Names that tests read and only the program can define, first those that the known solution defines."""
    trees = [ast.parse(text) for text in tests]
    bound = {name for tree in [*trees, ast.parse(setup)] for name in _bound(tree)}
    found: dict[str, None] = {}
    for tree in trees:
        for node in ast.walk(tree):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id not in bound:
                is_own = node.id in defined or not hasattr(builtins, node.id)
                found.update({node.id: None} if is_own else {})
    return sorted(found, key=lambda name: name not in defined)


def _bound(tree: ast.AST) -> Iterable[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Import | ast.ImportFrom):
            yield from ((alias.asname or alias.name).split(".")[0] for alias in node.names)


def _apps(row: DataRow, max_tests: int) -> Row:
    data = _json(row, "input_output")
    if not isinstance(data, dict) or not all(isinstance(data.get(key), list) for key in ("inputs", "outputs")):
        raise ShapeError("input_output holds no inputs and outputs")
    pairs = list(zip(data["inputs"], data["outputs"], strict=False))[:max_tests]
    if not pairs:
        raise ShapeError("no tests")
    solutions = _json(row, "solutions") if row.has("solutions") else []
    solution = str(solutions[0]) if isinstance(solutions, list) and solutions else ""
    starter = row.text("starter_code", allow_empty=True) if row.has("starter_code") else ""
    question, entry = row.text("question"), str(data.get("fn_name") or "")
    if entry:
        tests = [f"assert _same({entry}(*{list(one)!r}), {two!r})" for one, two in pairs if isinstance(one, list)]
        info = _function(entry, "", SAME, {}, [entry], tests)
    else:
        info = {"kind": "stdio", "entry": "", "tests": [[_as_text(one), _as_text(two)] for one, two in pairs]}
    return Row(question=question, starter=starter, entry=entry, solution=solution, info=info)


def _json(row: DataRow, column: str) -> Any:
    value = row.value(column)
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value) if value.strip() else None
    except (ValueError, RecursionError):
        raise ShapeError(f"{column} is not JSON") from None


def _as_text(value: Any) -> str:
    """Text; a list is one line each."""
    return "\n".join(str(item) for item in value) if isinstance(value, list) else str(value)


def _function(
    entry: str, given: str, setup: str, aliases: dict[str, str], names: list[str], tests: list[str]
) -> dict[str, Any]:
    kind = {"kind": "function", "entry": entry, "given": given, "setup": setup}
    return {**kind, "aliases": aliases, "names": names, "tests": tests}

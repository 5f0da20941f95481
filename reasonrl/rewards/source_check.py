"""What can be said about a reward's file without running it: is there such a function, and can it be called?"""

import ast
import importlib.util
import sys
from collections.abc import Iterator, Sequence
from importlib.machinery import PathFinder
from pathlib import Path

from reasonrl.text import suggest

CALL = "(problem, completion)"
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def check_source(file: Path, content: bytes, function: str) -> None:
    """Check without running it that ``file`` can be imported and ``function`` called.

    Raises:
        ValueError: if not; its first word is the field.
    """
    try:
        tree = ast.parse(content, str(file))
    except (SyntaxError, ValueError) as err:
        line = f":{err.lineno}" if isinstance(err, SyntaxError) and err.lineno else ""
        reason = err.msg if isinstance(err, SyntaxError) else str(err)
        raise ValueError(f"path must name a Python file: {file}{line}: {reason}") from err
    _check_name(file)
    _check_imports(file, tree)
    _check_function(file, tree, function)


def _check_name(file: Path) -> None:
    """The file is imported as the module of its name, so that functions of it pickle into other processes."""
    known = _find(file.stem)
    if known is not None and Path(known).resolve() != file.resolve():
        where = known if known == "built-in" else f"at {known}"
        raise ValueError(f"path names {file}, but Python has a module '{file.stem}' ({where}); rename the file")


def _check_imports(file: Path, tree: ast.Module) -> None:
    for node in tree.body:
        for name in _imported(node):
            top = name.partition(".")[0]
            if _find(top) is None and PathFinder.find_spec(top, [str(file.parent)]) is None:
                raise ValueError(f"path names {file}, which imports '{top}' (line {node.lineno}); install it")


def _imported(node: ast.stmt) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [node.module] if isinstance(node, ast.ImportFrom) and node.module and not node.level else []


def _find(module: str) -> str | None:
    """Where a top-level module would be imported from; None if there is none."""
    try:
        spec = importlib.util.find_spec(module)
    except ValueError:  # in sys.modules without a spec: __main__, or made by hand
        return str(getattr(sys.modules[module], "__file__", None) or "built-in")
    except ImportError:
        return None
    return None if spec is None else spec.origin or "built-in"


def _check_function(file: Path, tree: ast.Module, function: str) -> None:
    bound = dict(_bindings(tree.body))
    if function not in bound:
        if not bound.keys() & {"*", "__getattr__"}:
            hint = suggest(function, [n for n, node in bound.items() if isinstance(node, _FUNCTIONS)])
            raise ValueError(f"path must name a function: {file} has no '{function}'{hint}")
        return
    node = bound[function]
    if isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(node.value, ast.Constant):
        raise ValueError(f"path must name a function: '{function}' of {file} is {node.value.value!r}")
    if isinstance(node, ast.AsyncFunctionDef):
        raise ValueError(f"path must name a plain function: '{function}' of {file} is async")
    if isinstance(node, ast.FunctionDef) and not node.decorator_list and not _takes_two(node.args):
        got = ast.unparse(node.args)
        raise ValueError(f"path must name a function that takes {CALL}: {file} has {function}({got})")


def _bindings(body: Sequence[ast.stmt]) -> Iterator[tuple[str, ast.stmt]]:
    """Names that a module's statements bind, and where; ``*`` for what a star import may bring."""
    for node in body:
        if isinstance(node, (*_FUNCTIONS, ast.ClassDef)):
            yield node.name, node
        elif isinstance(node, ast.Import | ast.ImportFrom):
            yield from ((alias.asname or alias.name.partition(".")[0], node) for alias in node.names)
        else:
            names = (n for n in ast.walk(node) if isinstance(n, ast.Name))
            yield from ((name.id, node) for name in names if isinstance(name.ctx, ast.Store))
            for field in ("body", "orelse", "finalbody"):
                yield from _bindings(getattr(node, field, ()))
            for handler in getattr(node, "handlers", ()):
                yield from _bindings(handler.body)


def _takes_two(args: ast.arguments) -> bool:
    names = len(args.posonlyargs) + len(args.args)
    required = names - len(args.defaults)
    return required <= 2 and (names >= 2 or args.vararg is not None) and None not in args.kw_defaults

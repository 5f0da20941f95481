"""Importing what a user or a plugin names: ``pkg.mod:attribute``, or a file of Python."""

import gc
import importlib
import importlib.util
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any


def resolve(reference: str) -> Any:
    """What ``pkg.mod:name.name`` names; without names, the module."""
    module, _, attribute = reference.partition(":")
    target: object = importlib.import_module(module.strip())
    for part in filter(None, attribute.strip().split(".")):
        target = getattr(target, part)
    return target


def find_imported(file: Path) -> ModuleType | None:
    """The module that was imported from ``file``, if it was; from now on its folder can be imported from.

    A file is the top-level module of its name, so that its objects pickle into other processes.

    Raises:
        ImportError: if another module has that name.
    """
    if (folder := str(file.absolute().parent)) not in sys.path:
        sys.path.append(folder)
    known = sys.modules.get(file.stem)
    place = getattr(known, "__file__", None)
    if known is not None and Path(place or "").resolve() != file.resolve():
        raise ImportError(f"a module named '{file.stem}' exists already ({place or 'built-in'}); rename {file}")
    return known


def import_file(file: Path) -> ModuleType:
    """Import a file as the top-level module of its name.

    Raises:
        ImportError: if another module has that name.
    """
    file = file.absolute()  # its code may change the working directory
    if find_imported(file) is None:
        importlib.import_module(file.stem)
    known = find_imported(file)
    assert known is not None
    return known


@contextmanager
def without_collection() -> Iterator[None]:
    """Import large libraries sooner: the garbage collector does not keep searching what they make to stay."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def module_command(module: str) -> list[str]:
    """The command ``python -m module``, which looks for modules in the working directory first only if we do.

    A ``random.py`` there would take the place of Python's.
    """
    is_first = sys.path[:1] in ([""], [os.getcwd()])
    return [sys.executable, *([] if is_first else ["-P"]), "-m", module]


def is_installed(module: str) -> bool:
    """Whether there is a module of that name; imports nothing."""
    try:
        # find_spec("a.b") would import a.
        return importlib.util.find_spec(module.partition(".")[0]) is not None
    except (ImportError, ValueError):
        return False

"""A reward that is one function in a file of the user's."""

import hashlib
import importlib.util
import inspect
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

from reasonrl.contracts.data import Completion, Problem
from reasonrl.errors import RAISABLE, describe
from reasonrl.importing import find_imported

_HASH = "__reasonrl_sha256__"


class FileConfig(Protocol):
    """What ``recipe.reward_files.RewardFileConfig`` gives."""

    @property
    def file(self) -> Path: ...
    @property
    def function(self) -> str: ...
    @property
    def sha256(self) -> str: ...


class FileReward:
    """Calls ``function(problem, completion)``, which gives a Score, a number or None.

    Raises:
        ValueError: if the file is not what it was when the recipe was read, cannot be imported, or has no such
            function.
    """

    def __init__(self, config: FileConfig, context: Any) -> None:
        function = getattr(_module(config.file, config.sha256), config.function, None)
        if not callable(function):
            raise ValueError(f"{config.file} has no function {config.function!r}")
        if not _takes_two(function):
            raise ValueError(f"{config.function!r} of {config.file} does not take (problem, completion)")
        self._function = function

    def score(self, problem: Problem, completion: Completion) -> Any:
        """What the function says."""
        return self._function(problem, completion)


def _takes_two(function: Any) -> bool:
    try:
        inspect.signature(function).bind(None, None)
    except TypeError:
        return False
    except ValueError:  # a function in C need not tell
        pass
    return True


def _module(file: Path, sha256: str) -> ModuleType:
    """The file as the top-level module of its name, with the content that the recipe was read with.

    The import system may take an older compiled file, or what another recipe of this process has imported.
    """
    try:
        known = find_imported(file)
    except ImportError as err:
        raise ValueError(str(err)) from err
    if known is not None and getattr(known, _HASH, None) == sha256 and known.__file__ == str(file):
        return known
    content = _read(file, sha256)
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None  # its name ends in .py
    module = importlib.util.module_from_spec(spec)
    setattr(module, _HASH, sha256)
    sys.modules[file.stem] = module
    try:
        exec(compile(content, str(file), "exec"), module.__dict__)
    except RAISABLE as err:  # it may raise anything
        del sys.modules[file.stem]
        raise ValueError(f"{_place(file, err)} cannot be imported: {describe(err)}") from err
    return module


def _read(file: Path, sha256: str) -> bytes:
    try:
        content = file.read_bytes()
    except OSError as err:
        raise ValueError(f"{file} cannot be read: {err.strerror}") from err
    if hashlib.sha256(content).hexdigest() != sha256:
        raise ValueError(f"{file} has changed since the recipe was read; start again")
    return content


def _place(file: Path, err: BaseException) -> str:
    """The file and, if it is known, the line that raised."""
    trace, line = err.__traceback__, None
    while trace is not None:
        line = trace.tb_lineno if trace.tb_frame.f_code.co_filename == str(file) else line
        trace = trace.tb_next
    return f"{file}:{line}" if line else str(file)

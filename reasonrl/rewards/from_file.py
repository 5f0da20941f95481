"""A reward that is one function in a file of the user's: ``rewards: {mine: {path: my_reward.py:score}}``."""

import hashlib
import importlib.util
import inspect
import os
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

from reasonrl.contracts.data import Completion, Problem, Score
from reasonrl.contracts.specs import RewardSpec
from reasonrl.errors import RAISABLE, describe, plugin_code
from reasonrl.importing import find_imported
from reasonrl.rewards.source_check import check_source

DEFAULT_FUNCTION = "score"
_HASH = "__reasonrl_sha256__"


@dataclass(frozen=True)
class RewardFileConfig:
    """Where the function is, and the content of its file, which a resumed run must find again.

    Raises:
        ValueError: if the file is not there, cannot be imported, or has no function that can be called.
    """

    path: str = field(metadata={"help": "FILE.py:FUNCTION, called as FUNCTION(problem, completion)"})
    sha256: str = field(init=False, default="", metadata={"help": "of the file; no key of a recipe"})

    def __post_init__(self) -> None:
        file, function = self.file, self.function
        if file.suffix != ".py" or not function.isidentifier():
            raise ValueError(f"path must be FILE.py:FUNCTION, such as my_reward.py:score, got {self.path!r}")
        if not file.is_file():
            places = "" if file.is_absolute() else ", neither where you start nor beside the recipe"
            raise ValueError(f"path names a file that is not there: {file}{places}")
        try:
            content = file.read_bytes()
        except OSError as err:
            raise ValueError(f"path names a file that cannot be read: {file}: {err.strerror}") from err
        check_source(file, content, function)
        object.__setattr__(self, "path", f"{os.path.abspath(file)}:{function}")  # it is frozen
        object.__setattr__(self, "sha256", hashlib.sha256(content).hexdigest())

    @property
    def file(self) -> Path:
        """The Python file, absolute."""
        return Path(_parts(self.path)[0])

    @property
    def function(self) -> str:
        """Name of the function in it."""
        return _parts(self.path)[1]


class FileReward:
    """Calls ``function(problem, completion)``, which gives a Score, a number or None.

    Raises:
        ValueError: if the file is not what it was when the recipe was read, cannot be imported, or has no such
            function.
    """

    def __init__(self, config: RewardFileConfig, context: object) -> None:
        function = getattr(_module(config.file, config.sha256), config.function, None)
        if not callable(function):
            raise ValueError(f"{config.file} has no function {config.function!r}")
        if not _takes_two(function):
            raise ValueError(f"{config.function!r} of {config.file} does not take (problem, completion)")
        self._function = function

    def score(self, problem: Problem, completion: Completion) -> Score | float | None:
        """What the function says."""
        return self._function(problem, completion)


def _takes_two(function: Callable[..., object]) -> bool:
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
        with plugin_code(str(file)), redirect_stdout(sys.stderr):
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


def _parts(path: str) -> tuple[str, str]:
    head, _, tail = path.rpartition(":")
    file, function = (head, tail) if head.endswith(".py") else (path, DEFAULT_FUNCTION)
    return os.path.expanduser(file), function


def placed(path: str, folder: Path | None) -> str:
    """``path`` as it is found from where you start; else, if it is there, from the recipe's ``folder``."""
    file, function = _parts(path)
    if folder is not None and not Path(file).is_file() and (folder / file).is_file():
        return f"{folder / file}:{function}"
    return path


def file_reward(name: str) -> RewardSpec:
    """The spec of a reward that is a function in a file.

    Raises:
        ValueError: for a bad name.
    """
    return RewardSpec(name=name, summary="A function in a file.", config=RewardFileConfig, factory=FileReward)

"""A reward that is one function in a file of the user's."""

import importlib
import sys
from pathlib import Path
from typing import Any, Protocol

from reasonrl.contracts.data import Completion, Problem


class FileConfig(Protocol):
    """What ``recipe.reward_files.RewardFileConfig`` gives."""

    @property
    def file(self) -> Path: ...
    @property
    def function(self) -> str: ...


class FileReward:
    """Calls ``function(problem, completion)``, which gives a Score, a number or None.

    Raises: ValueError if the file has no such function; whatever the file raises when it is imported.
    """

    def __init__(self, config: FileConfig, context: Any) -> None:
        self._function = getattr(_module(config.file), config.function, None)
        if not callable(self._function):
            raise ValueError(f"{config.file} has no function {config.function!r}")

    def score(self, problem: Problem, completion: Completion) -> Any:
        """What the function says."""
        return self._function(problem, completion)  # type: ignore[misc]


def _module(file: Path) -> Any:
    """The file as the top-level module of its name: worker processes import it the same way."""
    path = file.resolve()
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))
    module = importlib.import_module(path.stem)
    if Path(module.__file__ or "").resolve() != path:
        raise ValueError(f"a module named '{path.stem}' exists already ({module.__file__}); rename {file}")
    return module

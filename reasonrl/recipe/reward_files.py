"""``rewards: {mine: {path: my_reward.py:score}}``: a function in a file as a reward, without a plugin."""

import hashlib
import os
from dataclasses import dataclass, field
from pathlib import Path

from reasonrl.contracts.specs import RewardSpec
from reasonrl.recipe.reward_source import check_source

DEFAULT_FUNCTION = "score"


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
        return Path(_parts(self.path)[0])

    @property
    def function(self) -> str:
        return _parts(self.path)[1]


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
    return RewardSpec(
        name=name,
        summary="A function in a file.",
        config=RewardFileConfig,
        factory="reasonrl.rewards.from_file:FileReward",
    )

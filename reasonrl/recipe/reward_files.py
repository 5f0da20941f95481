"""``rewards: {mine: {path: my_reward.py:score}}``: a function in a file as a reward, without a plugin."""

import os
from dataclasses import dataclass, field
from pathlib import Path

from reasonrl.contracts.specs import RewardSpec

DEFAULT_FUNCTION = "score"


@dataclass(frozen=True)
class RewardFileConfig:
    """Where the function is. Relative to where you start, as ``model.path`` is."""

    path: str = field(metadata={"help": "FILE.py:FUNCTION, called as FUNCTION(problem, completion)"})

    def __post_init__(self) -> None:
        if not self.file.suffix == ".py" or not self.function.isidentifier():
            raise ValueError(f"path must be FILE.py:FUNCTION, such as my_reward.py:score, got {self.path!r}")
        if not self.file.is_file():
            raise ValueError(f"path names a file that is not there: {self.file}")

    @property
    def file(self) -> Path:
        return Path(os.path.expanduser(self._parts()[0]))

    @property
    def function(self) -> str:
        return self._parts()[1]

    def _parts(self) -> tuple[str, str]:
        head, _, tail = self.path.rpartition(":")
        return (head, tail) if head.endswith(".py") else (self.path, DEFAULT_FUNCTION)


def file_reward(name: str) -> RewardSpec:
    """The spec of a reward that is a function in a file. Raises: ValueError for a bad name."""
    return RewardSpec(
        name=name,
        summary="A function in a file.",
        config=RewardFileConfig,
        factory="reasonrl.rewards.from_file:FileReward",
    )

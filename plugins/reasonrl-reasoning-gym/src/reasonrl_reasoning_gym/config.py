"""Options of the task and of the reward. Names are checked against reasoning-gym itself, so a typo has a line."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from reasonrl.contracts.options import require_choice

TEMPLATES = ("chat", "base", "bare")
DEFAULT_DATASET = "chain_sum"
_TAG = re.compile(r"[A-Za-z][A-Za-z0-9_-]*\Z")


@dataclass(frozen=True)
class DatasetConfig:
    """One dataset of a mixture. Raises ValueError unless the weight is positive."""

    weight: float = field(default=1.0, metadata={"help": "relative frequency, > 0"})
    config: dict[str, Any] = field(default_factory=dict, metadata={"help": "the dataset's own options"})

    def __post_init__(self) -> None:
        if not 0.0 < self.weight < math.inf:
            raise ValueError(f"weight must be > 0, got {self.weight}")


@dataclass(frozen=True)
class ReasoningGymConfig:
    """Which datasets, and how a question is put to the model.

    Raises:
        ValueError: naming the key for an unknown dataset or option (with the nearest one), or a value that the dataset
            refuses.
    """

    dataset: str | None = field(
        default=None, metadata={"help": f"one dataset; null = {DEFAULT_DATASET}, unless datasets lists some"}
    )
    config: dict[str, Any] = field(default_factory=dict, metadata={"help": "options of that one dataset"})
    datasets: dict[str, DatasetConfig] = field(
        default_factory=dict, metadata={"help": "or a mixture: dataset name -> {weight, config}"}
    )
    template: str = field(
        default="chat",
        metadata={"help": "chat (messages), base (raw text, a dialogue) or bare (the question alone)"},
    )
    answer_tag: str = field(
        default="answer",
        metadata={"help": "the answer stands in this tag; '' = it is all that follows the reasoning"},
    )

    def __post_init__(self) -> None:
        require_choice("template", self.template, TEMPLATES)
        if self.answer_tag and not _TAG.match(self.answer_tag):
            raise ValueError(f"answer_tag must be a word such as answer, or '', got {self.answer_tag!r}")
        if self.datasets and (self.dataset is not None or self.config):
            raise ValueError("datasets must be empty when dataset or config is given; list that one there too")
        _check(self)

    @property
    def mixture(self) -> Mapping[str, DatasetConfig]:
        """Every dataset with its weight and options, whichever way it was written."""
        return self.datasets or {self.dataset or DEFAULT_DATASET: DatasetConfig(config=self.config)}


def _check(config: ReasoningGymConfig) -> None:
    from reasonrl_reasoning_gym.catalog import check_dataset

    for name, entry in config.mixture.items():
        at = f"datasets.{name}" if config.datasets else ("dataset" if config.dataset else "config")
        check_dataset(name, entry.config, at)


@dataclass(frozen=True)
class ReasoningGymRewardConfig:
    """How a dataset's score becomes a reward."""

    partial_credit: bool = field(
        default=True, metadata={"help": "pay what the scorer gives for nearly right; false: 1 or 0"}
    )

"""Problems from a data set with columns ``nums`` and ``target``, split by the same rule as generated ones."""

import logging
from collections.abc import Iterator

from reasonrl import Split, read_rows
from reasonrl_countdown.config import CountdownConfig
from reasonrl_countdown.generator import Instance, split_of

_log = logging.getLogger(__name__)


class Dataset:
    """Rows within the config's ranges, in file order, each problem once.

    Raises: RecipeError naming file and line when it cannot be read, has a malformed row or none within the ranges.
    """

    def __init__(self, config: CountdownConfig) -> None:
        self._name = config.dataset
        self._splits = _read_splits(config)

    def size(self, split: Split) -> int:
        return len(self._splits[split])

    def instance(self, split: Split, position: int) -> Instance:
        """Raises: IndexError beyond the end of the split."""
        rows = self._splits[split]
        if position >= len(rows):
            raise IndexError(f"{self._name}: {split} has {len(rows)} problems, got index {position}")
        return rows[position]


def _read_splits(config: CountdownConfig) -> dict[Split, list[Instance]]:
    splits: dict[Split, dict[str, Instance]] = {"train": {}, "eval": {}}
    num_rows = 0
    for instance in _instances(config):
        num_rows += 1
        if _is_in_range(instance, config):
            splits[split_of(instance.key)].setdefault(instance.key, instance)
    num_kept = sum(len(rows) for rows in splits.values())
    _log.info("%s: %d problems from %d rows", config.dataset, num_kept, num_rows)
    if num_kept == 0:
        raise ValueError(
            f"{config.dataset}: none of {num_rows} rows lies in the ranges of numbers, number and target; "
            "widen them in the recipe's task section"
        )
    return {split: list(rows.values()) for split, rows in splits.items()}


def _instances(config: CountdownConfig) -> Iterator[Instance]:
    for row in read_rows(config.dataset, key="task.dataset"):
        yield Instance(tuple(row.integers(config.nums_column)), row.integer(config.target_column))


def _is_in_range(instance: Instance, config: CountdownConfig) -> bool:
    return (
        config.min_numbers <= len(instance.numbers) <= config.max_numbers
        and config.min_number <= min(instance.numbers)
        and max(instance.numbers) <= config.max_number
        and config.min_target <= instance.target <= config.max_target
    )

"""Problems from a data set with columns ``nums`` and ``target``, split by the same rule as generated ones."""

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from reasonrl import Split
from reasonrl_countdown.config import CountdownConfig
from reasonrl_countdown.generator import Instance, split_of

_FORMATS = {".jsonl": "json", ".json": "json", ".parquet": "parquet"}
_log = logging.getLogger(__name__)


class Dataset:
    """Rows within the config's ranges, in file order, each problem once. Read on first use."""

    def __init__(self, config: CountdownConfig) -> None:
        self._config = config
        self._splits: dict[Split, list[Instance]] | None = None

    def size(self, split: Split) -> int:
        return len(self._rows(split))

    def instance(self, split: Split, index: int) -> Instance:
        rows = self._rows(split)
        if index >= len(rows):
            raise IndexError(
                f"{self._config.dataset}: split {split} has {len(rows)} problems, got index {index}"
            )
        return rows[index]

    def _rows(self, split: Split) -> list[Instance]:
        if self._splits is None:
            self._splits = self._read()
        return self._splits[split]

    def _read(self) -> dict[Split, list[Instance]]:
        splits: dict[Split, dict[str, Instance]] = {"train": {}, "eval": {}}
        num_rows = 0
        for instance in _instances(self._config.dataset, load_rows(self._config.dataset)):
            num_rows += 1
            if _is_in_range(instance, self._config):
                splits[split_of(instance.key)].setdefault(instance.key, instance)
        num_kept = sum(len(rows) for rows in splits.values())
        _log.info("%s: %d problems from %d rows", self._config.dataset, num_kept, num_rows)
        if num_kept == 0:
            raise ValueError(
                f"{self._config.dataset}: none of {num_rows} rows lies in the ranges of numbers, number and "
                "target; widen them in the recipe's task section"
            )
        return {split: list(rows.values()) for split, rows in splits.items()}


def load_rows(name: str) -> Iterable[Mapping[str, Any]]:
    """Rows of a local file or of a hub data set's ``train`` split, through the datasets library."""
    suffix = Path(name).suffix
    if suffix in _FORMATS and not Path(name).is_file():
        raise ValueError(f"dataset {name}: no such file")
    import datasets

    if suffix in _FORMATS:
        return datasets.load_dataset(_FORMATS[suffix], data_files=name, split="train")
    return datasets.load_dataset(name, split="train")


def _instances(name: str, rows: Iterable[Mapping[str, Any]]) -> Iterable[Instance]:
    for number, row in enumerate(rows):
        try:
            yield Instance(tuple(int(n) for n in row["nums"]), int(row["target"]))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"{name}: row {number} must have nums (a list of integers) and target (an integer), "
                f"got {dict(row)}"
            ) from error


def _is_in_range(instance: Instance, config: CountdownConfig) -> bool:
    return (
        config.min_numbers <= len(instance.numbers) <= config.max_numbers
        and config.min_number <= min(instance.numbers)
        and max(instance.numbers) <= config.max_number
        and config.min_target <= instance.target <= config.max_target
    )

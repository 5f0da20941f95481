"""Problems from a data set with columns ``nums`` and ``target``, split by the same rule as generated ones."""

import json
import logging
from collections.abc import Iterable, Iterator, Mapping
from operator import index
from pathlib import Path
from typing import Any

from reasonrl import Split
from reasonrl_countdown.config import CountdownConfig
from reasonrl_countdown.generator import Instance, split_of

FILE_SUFFIXES = (".jsonl", ".json", ".parquet")
_log = logging.getLogger(__name__)


class Dataset:
    """Rows within the config's ranges, in file order, each problem once.

    Raises: ValueError when the data set cannot be read, has a malformed row or no row within the ranges.
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
    for instance in _instances(config.dataset):
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


def _instances(name: str) -> Iterator[Instance]:
    for number, row in enumerate(_rows(name)):
        try:
            instance = Instance(tuple(map(index, row["nums"])), index(row["target"]))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"{name}: row {number} must have nums (a list of integers) and target (an integer), "
                f"got {str(row)[:100]}"
            ) from error
        yield instance


def _rows(name: str) -> Iterable[Mapping[str, Any]]:
    path = Path(name).expanduser()
    if path.suffix not in FILE_SUFFIXES:
        return _hub_rows(str(path) if name.startswith("~") else name)
    if not path.is_file():
        raise ValueError(f"dataset {name}: no such file; give an existing file or a hub name")
    return _file_rows(path)


def _file_rows(path: Path) -> Iterable[Mapping[str, Any]]:
    if path.suffix == ".parquet":
        from pyarrow import parquet

        rows: list[Mapping[str, Any]] = parquet.read_table(path, columns=["nums", "target"]).to_pylist()
        return rows
    text = path.read_text(encoding="utf-8")
    try:
        if path.suffix == ".jsonl":
            return [json.loads(x) for x in text.split("\n") if x.strip()]
        found = json.loads(text)
    except ValueError as error:
        raise ValueError(f"{path}: not valid {path.suffix[1:]}: {error}") from error
    if not isinstance(found, list):
        expected = "a list of objects with nums (a list of integers) and target (an integer)"
        raise ValueError(f"{path}: must hold {expected}, got {str(found)[:100]}")
    return found


def _hub_rows(name: str) -> Iterable[Mapping[str, Any]]:
    """The ``train`` split of a hub data set, through the datasets library and its cache."""
    from datasets import load_dataset

    try:
        rows: Iterable[Mapping[str, Any]] = load_dataset(name, split="train")
    except OSError as error:
        raise ValueError(
            f"dataset {name}: cannot be loaded ({error}); give a local file or allow network access"
        ) from error
    return rows


def _is_in_range(instance: Instance, config: CountdownConfig) -> bool:
    return (
        config.min_numbers <= len(instance.numbers) <= config.max_numbers
        and config.min_number <= min(instance.numbers)
        and max(instance.numbers) <= config.max_number
        and config.min_target <= instance.target <= config.max_target
    )

"""Problems from a dataset with columns ``nums`` and ``target``, split by the same rule as generated ones."""

from collections.abc import Iterator

from reasonrl import DataSummary, Split, read_rows
from reasonrl.errors import RecipeError
from reasonrl_countdown.config import CountdownConfig
from reasonrl_countdown.generator import Instance, split_of
from reasonrl_countdown.solvable import unsolvable


class Dataset:
    """The problems that can be solved, within the config's ranges, in file order, each once.

    Raises:
        RecipeError: naming file and line when it cannot be read, has a malformed row or none within the ranges.
    """

    def __init__(self, config: CountdownConfig) -> None:
        self._name = config.dataset
        self._splits, self.summary = _read(config)

    def size(self, split: Split) -> int:
        return len(self._splits[split])

    def instance(self, split: Split, position: int) -> Instance:
        """Return an instance; raise IndexError beyond the end of the split."""
        rows = self._splits[split]
        if position >= len(rows):
            raise IndexError(f"{self._name}: {split} has {len(rows)} problems, got index {position}")
        return rows[position]


def _read(config: CountdownConfig) -> tuple[dict[Split, list[Instance]], DataSummary]:
    rows = list(_instances(config))
    in_range = [row for row in rows if _is_in_range(row, config)]
    distinct: dict[str, Instance] = {}
    for row in in_range:
        distinct.setdefault(row.key, row)
    hopeless = unsolvable([(row.numbers, row.target) for row in distinct.values()])
    splits: dict[Split, list[Instance]] = {"train": [], "eval": []}
    for position, row in enumerate(distinct.values()):
        if position not in hopeless:
            splits[split_of(row.key)].append(row)
    summary = DataSummary(
        source=config.dataset,
        kept={split: len(kept) for split, kept in splits.items()},
        dropped={
            "outside the ranges of numbers, number and target": len(rows) - len(in_range),
            "repeated": len(in_range) - len(distinct),
            "without a solution": len(hopeless),
        },
        held_out="a tenth of the problems is held out by their hash",
    )
    if not any(splits.values()):
        raise RecipeError(f"task.dataset: {summary}; use other rows, or widen the ranges in the recipe's task")
    return splits, summary


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

"""Hold problems of a data set out for evaluation: a split, a file, or a tenth by hash."""

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol, TypeVar

from reasonrl.contracts.data import DataSummary, Split
from reasonrl.errors import RecipeError

SHARE = 10
"""One problem in so many is held out by its hash."""
R = TypeVar("R")
Read = Callable[[str, str], tuple[Mapping[str, R], Mapping[str, int]]]
"""(path, split) -> distinct rows by the key of their problem, and how many others were dropped, by reason."""


class Source(Protocol):
    """The options of a task that say what to hold out. Null in both: a tenth of ``train_split``."""

    @property
    def train_split(self) -> str:
        """Split to train on."""
        ...

    @property
    def eval_split(self) -> str | None:
        """Split to hold out."""
        ...

    @property
    def eval_path(self) -> str | None:
        """File or dataset of the held-out problems."""
        ...


def hold_out(read: Read[R], path: str, source: Source) -> tuple[dict[Split, list[R]], list[DataSummary]]:
    """Read the rows of each split, and summarize each source.

    A problem that is held out is not trained on, even if both sources have it. With ``eval_split`` equal to
    ``train_split`` everything is held out: a benchmark without training data.

    Raises:
        RecipeError: If nothing is left to train on.
    """
    rows, dropped = read(path, source.train_split)
    if source.eval_path is None and source.eval_split == source.train_split:
        held = list(rows.values())
        return {"train": [], "eval": held}, [_summary(path, source.train_split, {"eval": held}, dropped)]
    if source.eval_path is None and source.eval_split is None:
        splits: dict[Split, list[R]] = {"train": [], "eval": []}
        for key, row in rows.items():
            splits[_split_of(key)].append(row)
        summaries = [_summary(path, source.train_split, splits, dropped)]
    else:
        other, split = source.eval_path or path, source.eval_split or source.train_split
        held_out, dropped_there = read(other, split)
        train = [row for key, row in rows.items() if key not in held_out]
        splits = {"train": train, "eval": list(held_out.values())}
        dropped = {**dropped, "held out": len(rows) - len(train)}
        summaries = [
            _summary(path, source.train_split, {"train": train}, dropped),
            _summary(other, split, {"eval": splits["eval"]}, dropped_there),
        ]
    if not splits["train"]:
        raise RecipeError(f"task.path: {summaries[0]}; no problems to train on; use other rows")
    return splits, summaries


def _split_of(key: str) -> Split:
    digest = hashlib.blake2b(key.encode(errors="surrogatepass"), digest_size=8).digest()
    return "eval" if int.from_bytes(digest, "big") % SHARE == 0 else "train"


def _summary(path: str, split: str, splits: Mapping[Split, list[R]], dropped: Mapping[str, int]) -> DataSummary:
    return DataSummary(
        source=path if Path(path).is_file() else f"{path}[{split}]",
        kept={name: len(rows) for name, rows in splits.items()},
        dropped=dropped,
        held_out="a tenth of the problems is held out by their hash; task.eval_path and task.eval_split name others",
    )

"""Choose the groups a step trains on when an algorithm kept more or fewer than the step needs."""

from collections.abc import Sequence
from typing import TypeVar

from reasonrl.trainer.ranks import Ranks

T = TypeVar("T")


def share_out(kept: Sequence[T], ranks: Ranks, *, wanted: int, minibatches: int) -> tuple[list[T], list[T]]:
    """Cut what the ranks have kept into equal shares; every rank calls it.

    A rank trains on its own groups first. What one has too many goes to those with too few.

    Args:
        kept: this rank's groups.
        wanted: groups of a whole step, over all ranks.
        minibatches: every share is a multiple of it.

    Returns:
        This rank's share, and what is left over of all ranks, the same list on every rank.

    Example:
        3 and 6 groups on two ranks, 8 wanted, 2 minibatches -> shares of 4, 1 left over.
    """
    counts = ranks.gather([len(kept)])
    parts = minibatches * ranks.size
    share = min(wanted, sum(counts)) // parts * minibatches
    spare = ranks.gather(list(kept[share:]))
    missing = [max(0, share - count) for count in counts]
    start = sum(missing[: ranks.rank])
    return [*kept[:share], *spare[start : start + missing[ranks.rank]]], spare[sum(missing) :]

"""Groups are shared out evenly, and none is lost or trained on twice."""

import threading
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reasonrl.trainer.sharing import share_out


class Threads:
    """Ranks that are threads of this process."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._barrier = threading.Barrier(size, timeout=20)
        self._given: list[list[Any]] = [[] for _ in range(size)]

    def run(self, kept: list[list[Any]], **options: Any) -> list[tuple[list[Any], list[Any]]]:
        """What ``share_out`` returns on each rank."""
        results: list[Any] = [None] * self.size

        def of(rank: int) -> None:
            results[rank] = share_out(kept[rank], _Rank(self, rank), **options)  # type: ignore[arg-type]

        threads = [threading.Thread(target=of, args=(rank,)) for rank in range(self.size)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return results

    def gather(self, rank: int, items: list[Any]) -> list[Any]:
        self._given[rank] = items
        self._barrier.wait()
        everything = [item for given in self._given for item in given]
        self._barrier.wait()
        return everything


class _Rank:
    def __init__(self, threads: Threads, rank: int) -> None:
        self._threads, self.rank, self.size = threads, rank, threads.size

    def gather(self, items: list[Any]) -> list[Any]:
        return self._threads.gather(self.rank, items)


def named(counts: list[int]) -> list[list[str]]:
    return [[f"{rank}/{number}" for number in range(count)] for rank, count in enumerate(counts)]


@pytest.mark.parametrize(
    ("counts", "wanted", "minibatches", "shares", "left"),
    [
        ([5], 4, 2, [["0/0", "0/1", "0/2", "0/3"]], ["0/4"]),
        ([3], 4, 2, [["0/0", "0/1"]], ["0/2"]),
        ([1], 4, 2, [[]], ["0/0"]),
        ([3, 0], 2, 1, [["0/0"], ["0/1"]], ["0/2"]),
        ([1, 4, 1], 6, 1, [["0/0", "1/2"], ["1/0", "1/1"], ["2/0", "1/3"]], []),
        ([0, 0], 2, 1, [[], []], []),
    ],
)
def test_shares_by_hand(
    counts: list[int], wanted: int, minibatches: int, shares: list[list[str]], left: list[str]
) -> None:
    found = Threads(len(counts)).run(named(counts), wanted=wanted, minibatches=minibatches)
    assert [share for share, _ in found] == shares
    assert all(rest == left for _, rest in found)


@settings(max_examples=150)
@given(
    counts=st.lists(st.integers(0, 9), min_size=1, max_size=4),
    minibatches=st.integers(1, 3),
    times=st.integers(1, 4),
)
def test_every_group_has_one_place(counts: list[int], minibatches: int, times: int) -> None:
    wanted = times * minibatches * len(counts)
    kept = named(counts)
    found = Threads(len(counts)).run(kept, wanted=wanted, minibatches=minibatches)
    shares, left = [share for share, _ in found], found[0][1]
    trained = [group for share in shares for group in share]
    assert sorted([*trained, *left]) == sorted(group for groups in kept for group in groups)
    assert all(rest == left for _, rest in found)
    parts = minibatches * len(counts)
    assert {len(share) for share in shares} == {min(wanted, sum(counts)) // parts * minibatches}
    assert all(share[: len(own)] == own[: len(share)] for share, own in zip(shares, kept, strict=True))

"""Generated problems: in range, reproducible, held out by key, and an honest end when none are left."""

import subprocess
import sys
from itertools import permutations

import pytest

from reasonrl_countdown import solve
from reasonrl_countdown.config import CountdownConfig
from reasonrl_countdown.generator import Generator, Instance, apply_exact, split_of

SCRIPT = """
from reasonrl_countdown.config import CountdownConfig
from reasonrl_countdown.generator import Generator
g = Generator(CountdownConfig(), 5)
print([(i.numbers, i.target) for s in ("train", "eval") for i in (g.instance(s, n) for n in range(20))])
"""


def test_problems_lie_in_the_configured_ranges_and_are_solvable() -> None:
    config = CountdownConfig(min_numbers=2, max_numbers=4, min_number=3, max_number=12, min_target=20, max_target=30)
    generator = Generator(config, 0)
    drawn = [generator.instance("train", i) for i in range(200)]
    assert {len(d.numbers) for d in drawn} == {2, 3, 4}
    assert all(3 <= n <= 12 for d in drawn for n in d.numbers)
    assert {d.target for d in drawn} <= set(range(20, 31))
    assert all(solve(d.numbers, d.target, limit=1) for d in drawn)


def test_problems_have_a_solution_in_positive_whole_numbers() -> None:
    """A stronger promise than solvable: no fraction, no negative number and no zero is needed on the way."""
    generator = Generator(CountdownConfig(max_number=8, min_target=1), 0)
    drawn = [generator.instance("train", i) for i in range(500)]
    assert [d for d in drawn if d.target not in _positive_whole_results(d.numbers)] == []


def _positive_whole_results(values: tuple[int, ...]) -> set[int]:
    if len(values) == 1:
        return {values[0]}
    found: set[int] = set()
    for i, j in permutations(range(len(values)), 2):
        rest = tuple(v for k, v in enumerate(values) if k not in (i, j))
        a, b = values[i], values[j]
        results = {a + b, a * b, *({a - b} if a > b else ()), *({a // b} if a % b == 0 else ())}
        for result in results:
            found |= _positive_whole_results((*rest, result))
    return found


def test_amounts_of_numbers_are_equally_frequent() -> None:
    generator = Generator(CountdownConfig(), 0)
    num_three = sum(len(generator.instance("train", i).numbers) == 3 for i in range(1000))
    assert 440 < num_three < 560


def test_an_index_gives_the_same_problem_in_any_order() -> None:
    forwards, backwards = Generator(CountdownConfig(), 3), Generator(CountdownConfig(), 3)
    for split in ("train", "eval"):
        there = [forwards.instance(split, i) for i in range(30)]
        assert [backwards.instance(split, i) for i in reversed(range(30))] == there[::-1]


def test_seeds_differ() -> None:
    a, b = Generator(CountdownConfig(), 0), Generator(CountdownConfig(), 1)
    assert [a.instance("train", i) for i in range(5)] != [b.instance("train", i) for i in range(5)]


def test_fresh_processes_with_other_hash_seeds_agree() -> None:
    outputs = {
        subprocess.run(
            [sys.executable, "-c", SCRIPT],
            env={"PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for hash_seed in ("0", "1234")
    }
    generator = Generator(CountdownConfig(), 5)
    here = [generator.instance(split, i) for split in ("train", "eval") for i in range(20)]
    assert outputs == {f"{[(i.numbers, i.target) for i in here]}\n"}


def test_the_key_ignores_the_order_of_the_numbers() -> None:
    assert Instance((8, 5, 12), 15).key == Instance((12, 8, 5), 15).key == "5,8,12=15"


def test_the_split_of_a_key_never_changes() -> None:
    """Pinned: another rule would put problems that a published model was trained on into its held-out set."""
    held_out = [key for key in (f"1,2,{c}=10" for c in range(1, 40)) if split_of(key) == "eval"]
    assert held_out == ["1,2,18=10", "1,2,33=10"]


def test_a_tenth_of_all_keys_is_held_out_and_seeds_do_not_matter() -> None:
    generators = [Generator(CountdownConfig(), seed) for seed in (0, 1)]
    assert all(split_of(g.instance("eval", i).key) == "eval" for g in generators for i in range(50))
    share = sum(split_of(f"{a},{b},{c}=10") == "eval" for a in range(20) for b in range(20) for c in range(20))
    assert 0.085 < share / 8000 < 0.115


def test_held_out_problems_are_distinct_and_disjoint_from_training() -> None:
    generator = Generator(CountdownConfig(max_number=20), 0)
    held_out = [generator.instance("eval", i).key for i in range(1000)]
    assert len(set(held_out)) == 1000
    assert not set(held_out) & {generator.instance("train", i).key for i in range(5000)}


def test_an_exhausted_range_says_how_many_problems_it_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reasonrl_countdown.generator._MAX_DRAWS", 5000)
    tiny = CountdownConfig(min_numbers=2, max_numbers=2, max_number=6, min_target=1, max_target=12)
    generator = Generator(tiny, 0)
    with pytest.raises(ValueError, match=r"no more eval problems after \d+ distinct ones") as caught:
        [generator.instance("eval", i) for i in range(1000)]
    num_found = int(str(caught.value).split("after ")[1].split()[0])
    assert [generator.instance("eval", i) for i in range(num_found)]


@pytest.mark.parametrize(
    ("operator", "left", "right", "result"),
    [
        ("+", 2, 3, 5),
        ("*", 2, 3, 6),
        ("-", 3, 2, 1),
        ("-", 2, 3, None),
        ("/", 6, 3, 2),
        ("/", 7, 3, None),
        ("/", 7, 0, None),
    ],
)
def test_apply_exact(operator: str, left: int, right: int, result: int | None) -> None:
    assert apply_exact(operator, left, right) == result


@pytest.mark.parametrize(
    "count", [pytest.param(200, marks=pytest.mark.slow), pytest.param(10_000, marks=pytest.mark.long)]
)
def test_problems_are_solvable_and_the_splits_do_not_overlap(count: int) -> None:
    generator = Generator(CountdownConfig(), 0)
    train = [generator.instance("train", i) for i in range(9 * count)]
    held_out = [generator.instance("eval", i) for i in range(count)]
    assert [d for d in train + held_out if not solve(d.numbers, d.target, limit=1)] == []
    assert len({d.key for d in held_out}) == count
    assert not {d.key for d in held_out} & {d.key for d in train}

"""Generate solvable problems, and separate training from held-out problems."""

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass

from reasonrl import Split
from reasonrl_countdown.config import CountdownConfig

EVAL_BUCKETS = 1
BUCKETS = 10
_MAX_DRAWS = 200_000
"""A draw usually succeeds within a few dozen tries; this many failures mean the range is exhausted."""
_TRIES_PER_COUNT = 2000
"""Tries with one amount of numbers before choosing another, because its problems may be exhausted."""


@dataclass(frozen=True, slots=True)
class Instance:
    """Numbers in the order they are shown, and the target."""

    numbers: tuple[int, ...]
    target: int

    @property
    def key(self) -> str:
        """Identify the problem up to the order of its numbers."""
        return f"{','.join(map(str, sorted(self.numbers)))}={self.target}"


def split_of(key: str) -> Split:
    """Return the split of a problem: a tenth is held out, independent of seed, ranges and source."""
    digest = hashlib.blake2b(f"countdown/{key}".encode(), digest_size=8).digest()
    return "eval" if int.from_bytes(digest, "big") % BUCKETS < EVAL_BUCKETS else "train"


class Generator:
    """Index-addressed instances; each depends on (seed, split, index) and the ranges only.

    Training instances may repeat. Held-out ones are distinct: they are drawn in order and remembered.
    """

    def __init__(self, config: CountdownConfig, seed: int) -> None:
        self._config = config
        self._seed = seed
        self._held_out: list[Instance] = []
        self._held_out_keys: set[str] = set()

    def instance(self, split: Split, index: int) -> Instance:
        """The instance at ``index`` >= 0.

        Raises:
            ValueError: when the ranges hold too few problems.
        """
        if split == "train":
            return self._draw("train", index)
        while len(self._held_out) <= index:
            drawn = self._draw("eval", len(self._held_out))
            self._held_out.append(drawn)
            self._held_out_keys.add(drawn.key)
        return self._held_out[index]

    def _draw(self, split: Split, index: int) -> Instance:
        # A str seed goes through SHA-512, so it is the same in every process, unlike hash().
        rng = random.Random(f"countdown/{self._seed}/{split}/{index}")
        for tries in range(_MAX_DRAWS):
            # Not at every try: few numbers reach a target more often and would crowd out many.
            if tries % _TRIES_PER_COUNT == 0:
                count = _draw_count(self._config, rng)
            drawn = _draw_instance(self._config, count, rng)
            if drawn is None or split_of(drawn.key) != split:
                continue
            if split == "train" or drawn.key not in self._held_out_keys:
                return drawn
        raise ValueError(self._exhausted(split, index))

    def _exhausted(self, split: Split, index: int) -> str:
        held = "" if split == "train" else f" after {len(self._held_out)} distinct ones"
        return (
            f"countdown: no more {split} problems{held} (index {index}); "
            "request fewer problems or widen numbers, number or target"
        )


def _draw_count(config: CountdownConfig, rng: random.Random) -> int:
    """How many numbers."""
    counts = range(config.min_numbers, config.max_numbers + 1)
    if not config.numbers_weights:
        return rng.randint(counts[0], counts[-1])
    return rng.choices(counts, config.numbers_weights)[0]


def _draw_instance(config: CountdownConfig, count: int, rng: random.Random) -> Instance | None:
    """One try: random numbers combined in a random order; None when it leads to no allowed target."""
    width = config.max_number - config.min_number + 1
    numbers = [config.min_number + _below(width, rng) for _ in range(count)]
    target = _random_value(numbers, rng)
    if target is None or not config.min_target <= target <= config.max_target:
        return None
    return Instance(tuple(numbers), target)


def _random_value(numbers: Sequence[int], rng: random.Random) -> int | None:
    """Combine all numbers by random operations whose results are positive integers (the last may be 0)."""
    values = list(numbers)
    while len(values) > 1:
        left = values.pop(_below(len(values), rng))
        right = values.pop(_below(len(values), rng))
        value = apply_exact("+-*/"[_below(4, rng)], left, right)
        if value is None or (value == 0 and values):
            return None
        values.append(value)
    return values[0]


def _below(n: int, rng: random.Random) -> int:
    """Draw from [0, n) as ``rng.randrange(n)`` does, in half its time: most of a run's problems are rejected draws."""
    bits = n.bit_length()
    value = rng.getrandbits(bits)
    while value >= n:
        value = rng.getrandbits(bits)
    return value


def apply_exact(operator: str, left: int, right: int) -> int | None:
    """The result when it is a whole number and not negative, else None."""
    if operator == "+":
        return left + right
    if operator == "*":
        return left * right
    if operator == "-":
        return left - right if left >= right else None
    return left // right if right > 0 and left % right == 0 else None

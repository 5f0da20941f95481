"""Entries of reasoning-gym datasets, index-addressed, with training and held-out ones apart by construction.

An entry depends on (seed, split, index, dataset, its options) alone. Which split a question belongs to is decided by
its text: the hash of a quarter of all questions says "held out". So no text is ever in both splits, whatever the seeds,
however few different questions a dataset has.
"""

import contextlib
import hashlib
import io
import json
import random
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from reasonrl import Split
from reasonrl_reasoning_gym.catalog import gym
from reasonrl_reasoning_gym.config import ReasoningGymConfig
from reasonrl_reasoning_gym.guard import is_harmless

HELD_OUT_SHARE = 4
"""One question in so many is held out."""
MAX_TRIES = 200
FROM_THEIR_CONSTRUCTOR = frozenset({"acre", "gsm_symbolic", "list_functions"})
"""Datasets whose constructor draws ``size`` problems: they have no entry beyond. Recreated for each block."""
BLOCK = 50
_RANGE = 2**31
"""Seed and index stay below this, so that their sum seeds numpy too."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One generated question. ``seed`` and ``position`` are those of the dataset that made it."""

    dataset: str
    options: Mapping[str, Any]
    seed: int
    position: int
    question: str
    answer: str | None
    """None: the dataset has no single right answer."""
    metadata: Any


@dataclass
class Source:
    """The mixture of a config. Holds datasets that were made before; nothing else is remembered."""

    config: ReasoningGymConfig
    seed: int
    _made: dict[tuple[str, int], Any] = field(default_factory=dict)

    def entry(self, split: Split, index: int) -> Entry:
        """The entry at ``index`` of a split.

        Raises:
            ValueError: when no question of the split comes up, or the dataset fails at every try.
        """
        rng = random.Random(f"reasoning_gym/{self.seed}/{split}/{index}")
        mixture = self.config.mixture
        name = rng.choices(list(mixture), [entry.weight for entry in mixture.values()])[0]
        failure = ""
        for attempt in range(MAX_TRIES):
            seed, position = self._address(name, split, index, attempt)
            try:
                found = self._make(name, seed, position)
            except Exception as err:  # noqa: BLE001 - a generator may run into a dead end at an index; another is tried
                failure = f"; the last failure was {type(err).__name__}: {err}"
                continue
            if split_of(found.question) == split and _is_sound(found):
                return found
        raise ValueError(
            f"reasoning_gym: no {split} question of {name} in {MAX_TRIES} tries (index {index}){failure}; "
            "widen its options, it has too few different questions"
        )

    def _address(self, name: str, split: Split, index: int, attempt: int) -> tuple[int, int]:
        if name in FROM_THEIR_CONSTRUCTOR:
            block = f"{self.seed}/{name}/{split}/{index // BLOCK}/{attempt}"
            return _number(block), index % BLOCK
        return _number(f"{self.seed}/{name}"), _number(f"{self.seed}/{name}/{split}/{index}/{attempt}")

    def _make(self, name: str, seed: int, position: int) -> Entry:
        options = self.config.mixture[name].config
        dataset = self._made.get((name, seed))
        if dataset is None:
            self._forget(name)
            dataset = self._made[name, seed] = make_dataset(name, options, seed)
        return entry_of(dataset, name, options, seed, position)

    def _forget(self, name: str) -> None:
        """Blocks come and go; a few are kept for the tries of neighboring indices."""
        old = [key for key in self._made if key[0] == name]
        for key in old[:-16]:
            del self._made[key]


def _is_sound(entry: Entry) -> bool:
    """Whether its own answer may be judged. Some integrals come back from sympy as ``Integral(...)``: no solution."""
    return entry.answer is None or is_harmless(entry.dataset, entry.answer)


def split_of(question: str) -> Split:
    """Which split a question belongs to; blanks and letter case make no other question of it."""
    digest = hashlib.blake2b(" ".join(question.lower().split()).encode(), digest_size=8).digest()
    return "eval" if int.from_bytes(digest, "big") % HELD_OUT_SHARE == 0 else "train"


def make_dataset(name: str, options: Mapping[str, Any], seed: int) -> Any:
    """A dataset that has an entry at every index (a block of them, if its constructor draws them)."""
    with undisturbed(f"{name}/{seed}"):
        dataset = gym().create_dataset(name, **{**options, "seed": seed, "size": BLOCK})
    if name not in FROM_THEIR_CONSTRUCTOR:
        dataset.size = 2 * _RANGE  # only ever compared with an index
    return dataset


def entry_of(dataset: Any, name: str, options: Mapping[str, Any], seed: int, position: int) -> Entry:
    """What the dataset has at ``position``.

    Raises:
        Exception: whatever its generator raises.
    """
    with undisturbed(f"{name}/{seed}/{position}"):
        raw = dataset[position]
    answer = None if raw["answer"] is None else str(raw["answer"])
    return Entry(name, options, seed, position, str(raw["question"]), answer, raw["metadata"])


@contextlib.contextmanager
def undisturbed(key: str) -> Iterator[None]:
    """Run foreign code that may print and may use the global random generators.

    These are seeded from ``key``, so that it gives the same every time, and are put back as they were.
    """
    numpy = sys.modules.get("numpy")
    state, numpy_state = random.getstate(), numpy.random.get_state() if numpy else None
    random.seed(key)
    if numpy:
        numpy.random.seed(_number(key))
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        random.setstate(state)
        if numpy:
            numpy.random.set_state(numpy_state)


def options_key(options: Mapping[str, Any]) -> str:
    """Options as text, for a cache."""
    return json.dumps(options, sort_keys=True, default=str)


def _number(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") % _RANGE

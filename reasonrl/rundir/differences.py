"""Recipes as dotted keys, and what differs between two of them."""

import json
from collections.abc import Iterator, Mapping
from itertools import takewhile

SEED_KEYS = ("name", "seed", "output_dir", "device", "logging", "checkpoint")
"""Sections of a recipe in which two seeds of one experiment may differ: nothing else there changes what is learned."""


def without_seed(recipe: Mapping[str, object]) -> dict[str, object]:
    """Return the sections that all seeds of one experiment share."""
    return {key: value for key, value in recipe.items() if key not in SEED_KEYS}


def flatten(tree: Mapping[str, object], at: str = "") -> dict[str, object]:
    """Flatten nested mappings to dotted keys; lists and empty mappings stay values."""
    found: dict[str, object] = {}
    for key, value in tree.items():
        dotted = f"{at}.{key}" if at else str(key)
        if isinstance(value, Mapping) and value:
            found |= flatten(value, dotted)
        else:
            found[dotted] = value
    return found


def differences(before: object, now: object, at: str = "") -> Iterator[tuple[str, object, object]]:
    """(dotted path, old, new) of every leaf that is not the same."""
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        for key in sorted(before.keys() | now.keys()):
            below = f"{at}.{key}" if at else key
            yield from differences(before.get(key), now.get(key), below)
    elif before != now:
        yield at, before, now


def format_value(value: object, most: int = 60) -> str:
    """Write a value as JSON, of ``most`` characters or fewer."""
    return _clip(json.dumps(value, ensure_ascii=False), most)


def format_pair(one: object, other: object, most: int = 60) -> tuple[str, str]:
    """Write two values that differ likewise, without a long beginning that they share: the difference shows."""
    texts = [json.dumps(value, ensure_ascii=False) for value in (one, other)]
    shared = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(*texts, strict=False)))
    if shared > most // 2:
        texts = ["..." + text[shared - most // 4 :] for text in texts]
    return _clip(texts[0], most), _clip(texts[1], most)


def _clip(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 3] + "..."

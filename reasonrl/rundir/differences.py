"""Recipes as dotted keys, and what differs between two of them."""

import json
from collections.abc import Iterator, Mapping

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
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= most else text[: most - 3] + "..."

"""What differs between two records of a recipe."""

from collections.abc import Iterator, Mapping


def differences(before: object, now: object, at: str = "") -> Iterator[tuple[str, object, object]]:
    """(dotted path, old, new) of every leaf that is not the same."""
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        for key in sorted(before.keys() | now.keys()):
            below = f"{at}.{key}" if at else key
            yield from differences(before.get(key), now.get(key), below)
    elif before != now:
        yield at, before, now

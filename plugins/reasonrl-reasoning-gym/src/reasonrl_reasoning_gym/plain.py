"""Metadata of an entry as JSON and back, with what JSON does not have: tuples, sets, keys that are no text."""

from collections.abc import Mapping, Set
from typing import Any

_TAG = "$"


class NotPlainError(TypeError):
    """An object that cannot be written down; the scorer then makes the entry again."""


def to_plain(value: Any) -> Any:
    """JSON values only.

    Raises:
        NotPlainError: if it holds anything else.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return _exactly(value)
    if isinstance(value, list):
        return [to_plain(item) for item in value]
    if isinstance(value, tuple):
        return {_TAG: "tuple", "items": [to_plain(item) for item in value]}
    if isinstance(value, Set):
        items = sorted(value, key=lambda item: (type(item).__name__, repr(item)))
        return {_TAG: type(value).__name__, "items": [to_plain(item) for item in items]}
    if isinstance(value, Mapping):
        return _mapping(value)
    if hasattr(value, "tolist") and hasattr(value, "dtype"):  # numpy, which need not be imported here
        return to_plain(value.tolist())
    raise NotPlainError(f"{type(value).__name__} is not plain data")


def from_plain(value: Any) -> Any:
    """What ``to_plain`` was given, up to numpy arrays, which come back as lists."""
    if isinstance(value, list):
        return [from_plain(item) for item in value]
    if not isinstance(value, dict):
        return value
    kind = value.get(_TAG)
    if kind is None:
        return {key: from_plain(item) for key, item in value.items()}
    items = [from_plain(item) for item in value["items"]]
    return {"tuple": tuple, "set": set, "frozenset": frozenset, "dict": dict}[kind](items)


def _mapping(value: Mapping[Any, Any]) -> dict[str, Any]:
    if all(type(key) is str for key in value) and _TAG not in value:
        return {key: to_plain(item) for key, item in value.items()}
    return {_TAG: "dict", "items": [to_plain((key, item)) for key, item in value.items()]}


def _exactly(value: Any) -> Any:
    """A subclass of str or int (an enumeration, a numpy number) as what it stands for, if that loses nothing."""
    for kind in (bool, int, float, str):
        if type(value) is kind:
            return value
    if value is None:
        return None
    if type(value).__module__ == "numpy":
        return value.item()
    raise NotPlainError(f"{type(value).__name__} is not plain data")

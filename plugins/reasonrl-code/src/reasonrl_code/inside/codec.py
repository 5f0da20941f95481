"""Values between a program and its tests: plain ones travel, others stay where they are and are referred to.

A subclass travels as the plain type it derives from, so that no method of the program's, such as an ``__eq__``, ever
reaches a test.
"""

from collections import deque
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any

EXACT_INTEGER = 2**53
MAX_DEPTH = 200


class NotPlainError(Exception):
    """A value that cannot travel."""


class Reference:
    """Something that stays in the other process."""

    def __init__(self, key: int, kind: str) -> None:
        self.key, self.kind = key, kind


def encode(value: Any, refer: Callable[[Any], list[Any]], depth: int = 0) -> Any:
    """Return JSON for a value; ``refer`` does it for what is not plain."""
    if depth > MAX_DEPTH:
        raise NotPlainError(f"nested deeper than {MAX_DEPTH}")
    if value is None or value is True or value is False:
        return value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        whole = int.__add__(value, 0)
        return whole if -EXACT_INTEGER < whole < EXACT_INTEGER else ["i", hex(whole)]
    for tag, kind, write in _SIMPLE:
        if isinstance(value, kind):
            return [tag, *write(value)]
    for tag, kind in _SEQUENCES:
        if isinstance(value, kind):
            return [tag, *(encode(item, refer, depth + 1) for item in kind.__iter__(value))]
    if isinstance(value, dict):
        pairs = dict.items(value)
        return ["d", *([encode(k, refer, depth + 1), encode(v, refer, depth + 1)] for k, v in pairs)]
    return refer(value)


def decode(data: Any, resolve: Callable[[int, str], Any]) -> Any:
    """Return the value; ``resolve`` finds the object that a reference names.

    Raises:
        NotPlainError: for JSON that ``encode`` does not write.
    """
    try:
        return _decode(data, resolve)
    except (ValueError, TypeError, IndexError, KeyError, ArithmeticError, RecursionError, AttributeError) as err:
        raise NotPlainError(f"not a value: {type(err).__name__}") from None


def _decode(data: Any, resolve: Callable[[int, str], Any]) -> Any:
    if data is None or isinstance(data, bool | str | int):
        return data
    tag, *items = data
    if tag in _MAKE_SEQUENCE:
        return _MAKE_SEQUENCE[tag](_decode(item, resolve) for item in items)
    if tag == "d":
        return {_decode(key, resolve): _decode(value, resolve) for key, value in items}
    if tag == "h":
        key, kind = items
        return resolve(int(key), str(kind))
    return _READ[tag](*items)


_SIMPLE: tuple[tuple[str, type, Callable[[Any], list[Any]]], ...] = (
    ("f", float, lambda value: [float.hex(value)]),
    ("c", complex, lambda value: [float.hex(value.real), float.hex(value.imag)]),
    ("b", bytes, lambda value: [bytes.hex(value)]),
    ("a", bytearray, lambda value: [bytearray.hex(value)]),
    ("r", range, lambda value: [hex(value.start), hex(value.stop), hex(value.step)]),
    ("D", Decimal, lambda value: [Decimal.__str__(value)]),
    ("F", Fraction, lambda value: [hex(value.numerator), hex(value.denominator)]),
)
_SEQUENCES: tuple[tuple[str, Any], ...] = (
    ("l", list),
    ("t", tuple),
    ("s", set),
    ("z", frozenset),
    ("q", deque),
)
_MAKE_SEQUENCE: dict[str, Callable[[Any], Any]] = dict(_SEQUENCES)
_READ: dict[str, Callable[..., Any]] = {
    "i": lambda text: int(text, 16),
    "f": float.fromhex,
    "c": lambda real, imag: complex(float.fromhex(real), float.fromhex(imag)),
    "b": bytes.fromhex,
    "a": bytearray.fromhex,
    "r": lambda *parts: range(*(int(part, 16) for part in parts)),
    "D": Decimal,
    "F": lambda top, bottom: Fraction(int(top, 16), int(bottom, 16)),
}

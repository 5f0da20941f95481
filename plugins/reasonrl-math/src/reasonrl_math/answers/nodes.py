"""What an answer can be, once it is read. All of it compares by content."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction


class UnreadableError(ValueError):
    """The text is not a readable answer; says why."""


@dataclass(frozen=True, slots=True)
class Number:
    """A number as it was written, exactly."""

    value: Fraction
    notation: str = "integer"


@dataclass(frozen=True, slots=True)
class Symbol:
    """A variable."""

    name: str


@dataclass(frozen=True, slots=True)
class Call:
    """An operation or function: ``add``, ``pow``, ``sin``; without arguments a constant such as ``pi``."""

    name: str
    args: tuple[Expression, ...] = ()


Expression = Number | Symbol | Call


@dataclass(frozen=True, slots=True)
class Quantity:
    """An expression and its unit; no unit is ''."""

    value: Expression
    unit: str = ""


@dataclass(frozen=True, slots=True)
class Group:
    """Several answers between brackets: ``()``, ``[]``, ``(]``, ``[)`` and ``<>`` in order, ``{}`` a set, '' a list."""

    brackets: str
    items: tuple[Answer, ...]


@dataclass(frozen=True, slots=True)
class Union:
    """A union of sets."""

    parts: tuple[Answer, ...]


@dataclass(frozen=True, slots=True)
class Matrix:
    """Rows of entries."""

    rows: tuple[tuple[Answer, ...], ...]


@dataclass(frozen=True, slots=True)
class Claim:
    """``x = a = b``: a name and the values that it is said to have. Without a name: ``a = b``."""

    name: str
    values: tuple[Answer, ...]


@dataclass(frozen=True, slots=True)
class Relation:
    """Any other equation or inequality; ``signs`` stand between ``sides``."""

    sides: tuple[Answer, ...]
    signs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Words:
    """Text that is compared as text."""

    text: str


Answer = Quantity | Group | Union | Matrix | Claim | Relation | Words

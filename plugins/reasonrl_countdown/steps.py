"""Find equations in a trace: the computation, whether it is true, and the verdict on it."""

import re
from collections.abc import Iterator
from fractions import Fraction
from typing import NamedTuple

from reasonrl_countdown.expression import MAX_CHARS, MAX_DIGITS, evaluate_postfix, parse_postfix

# Every pattern has one way to match at a position, so that finding all matches takes linear time.
_RUN = re.compile(r"[0-9(+\-*/).=×÷−·][0-9(+\-*/).=×÷−· \t]*")
_SIMPLE = re.compile(rf"([0-9]{{1,{MAX_DIGITS}}})([-+*/])([0-9]{{1,{MAX_DIGITS}}})=([0-9]{{1,{MAX_DIGITS}}}) ?")
_BOUNDARY = re.compile(r"(?<=[0-9)])[ \t]+(?=[0-9(])|\.(?![0-9])")
_NUMBER = re.compile(rf"[0-9]{{1,{MAX_DIGITS}}}(?:\.[0-9]{{1,{MAX_DIGITS}}})?")
_VERDICT = re.compile(
    r"\b(?:(yes|works|correct|matches)|no|not|wrong|incorrect|too)\b|n['’]t\b|≠|!=|(✓|✅)|[✗❌]",
    re.IGNORECASE,
)
_ASCII = str.maketrans("×·÷−", "**/-")
_OPERATORS = "+-*/"

Value = int | Fraction


class Step(NamedTuple):
    """One equation.

    ``value``: as stated in the text. ``verdict``: the verdict before the next step, or None. ``on_new_line``: whether a
    newline separates it from the previous step. ``start``, ``end``: the characters of the equations it stands among.
    """

    postfix: list[str | int]
    value: Value
    is_true: bool
    verdict: bool | None
    on_new_line: bool
    start: int
    end: int


def read_steps(text: str) -> Iterator[Step]:
    """Find all steps of a trace, in order."""
    found: tuple[list[str | int], Value, bool] | None = None
    on_new_line, begin, end = False, 0, 0
    for match in _RUN.finditer(text):
        run = match.group()
        if "=" not in run:
            continue
        for equation in _equations(run):
            start = match.start()
            if found is not None:
                # A run holds no letters, so what is said of a step stands between two runs.
                gap = text[end:start] if start > end else ""
                yield Step(*found, _verdict(gap), on_new_line, begin, end)
                on_new_line = "\n" in gap
            found, begin, end = equation, start, match.end()
    if found is not None:
        yield Step(*found, _verdict(text[end:]), on_new_line, begin, end)


def postfix_of(text: str) -> list[str | int] | None:
    """Operands and operators of an expression in postfix order; None if it is none."""
    return parse_postfix(text.translate(_ASCII))


def intern(table: dict[object, int], operator: str, left: int, right: int) -> int:
    """A number for the tree, the same for trees that differ in the order of operands of + and * only."""
    if operator in "+*" and right < left:
        left, right = right, left
    return table.setdefault((operator, left, right), len(table))


def _verdict(gap: str) -> bool | None:
    said = _VERDICT.search(gap)
    return None if said is None else said.group(1) is not None or said.group(2) is not None


def _equations(run: str) -> Iterator[tuple[list[str | int], Value, bool]]:
    simple = _SIMPLE.fullmatch(run)
    if simple is not None:
        left, operator, right, value = simple.groups()
        a, b, c = int(left), int(right), int(value)
        yield [a, b, operator], c, _is_true(operator, a, b, c)
        return
    for part in _BOUNDARY.split(run):
        if "=" in part and len(part) <= MAX_CHARS:
            equation = _equation(part)
            if equation is not None:
                yield equation


def _is_true(operator: str, a: int, b: int, c: int) -> bool:
    if operator == "+":
        return a + b == c
    if operator == "-":
        return a - b == c
    return a * b == c if operator == "*" else b != 0 and a == b * c


def _equation(part: str) -> tuple[list[str | int], Value, bool] | None:
    """``a+b = c`` or a chain of equal signs; the first member with an operator is what was calculated."""
    members = [member.strip(" \t") for member in part.translate(_ASCII).split("=")]
    members[0] = _without_open(members[0].lstrip("+-*/) \t"))
    members[-1] = _without_close(members[-1].rstrip("+-*/( \t"))
    read = [_member(member) for member in members]
    known = [entry for entry in read if entry is not None]
    calculated = next((i for i, entry in enumerate(known) if len(entry[0]) > 1), None)
    if len(known) < len(read) or len(known) < 2 or calculated is None:
        return None
    values = [entry[1] for entry in known]
    if any(value is None for value in values):  # a division by zero has no value to state
        stated = [value for value in (values[-1], values[0]) if value is not None]
        return (known[calculated][0], stated[0], False) if stated else None
    numbers = [value for value in values if value is not None]
    value = numbers[0] if calculated == len(known) - 1 else numbers[-1]
    exact = numbers[calculated]
    return (
        known[calculated][0],
        value,
        all(_agrees(exact, n, m) for n, m in zip(numbers, members, strict=True)),
    )


def _agrees(exact: Value, stated: Value, text: str) -> bool:
    """Equal, or equal as rounded to the decimals that the text shows."""
    _, point, decimals = text.partition(".")
    if not point:
        return exact == stated
    return abs(Fraction(exact) - Fraction(stated)) <= Fraction(1, 2 * 10 ** len(decimals))


def _member(text: str) -> tuple[list[str | int], Value | None] | None:
    """Postfix and value of one side; the value is None when it divides by zero."""
    if _NUMBER.fullmatch(text):
        value = Fraction(text)
        whole = value.numerator if value.denominator == 1 else value
        return [0], whole  # a plain number is not what was calculated: its postfix is never read
    postfix = parse_postfix(text)
    return None if postfix is None else (postfix, evaluate_postfix(postfix))


def _without_open(text: str) -> str:
    """``(3+5`` of ``(3+5=8)`` without the bracket that the equation stands in."""
    surplus = text.count("(") - text.count(")")
    while surplus > 0 and text.startswith("("):
        text, surplus = text[1:].lstrip(" \t"), surplus - 1
    return text


def _without_close(text: str) -> str:
    surplus = text.count(")") - text.count("(")
    while surplus > 0 and text.endswith(")"):
        text, surplus = text[:-1].rstrip(" \t"), surplus - 1
    return text

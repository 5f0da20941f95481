"""Answers around expressions: lists, tuples, intervals, sets, matrices, equations."""

import contextlib
import re
from fractions import Fraction

from reasonrl_math.answers.brackets import pairs, split, without_thousands
from reasonrl_math.answers.grammar import parse_expression
from reasonrl_math.answers.nodes import (
    Answer,
    Call,
    Claim,
    Expression,
    Group,
    Matrix,
    Number,
    Quantity,
    Relation,
    Symbol,
    Union,
    UnreadableError,
)
from reasonrl_math.answers.numbers import are_near
from reasonrl_math.answers.text import clean
from reasonrl_math.answers.units import PERCENT, split_unit
from reasonrl_math.answers.words import (
    MAX_WORDS,
    as_words,
    choice_of,
    is_a_solution,
    is_name,
    is_only_text,
    is_prose,
    name_of,
    without_text,
    words_of,
)

FLIPPED = {"<": ">", ">": "<", "<=": ">=", ">=": "<=", "=": "=", "!=": "!="}
_MAX_CHARS = 2000
_INFINITY = Call("oo")
_MINUS_INFINITY = Call("neg", (_INFINITY,))

_SIGNS = re.compile(r"\\(?:le|ge|ne|approx|in)(?![a-z])|<=|>=|!=|==|[=<>]")
_SAME_SIGN = {"\\le": "<=", "\\ge": ">=", "\\ne": "!=", "\\approx": "~", "\\in": "=", "==": "="}
_COMMA = re.compile(r"[,;]|(?<![A-Za-z\\])(?:and|or)(?![A-Za-z])")
_CUP = re.compile(r"\\cup(?![a-z])")
_BAR = re.compile(r"[|:]")
_MATRIX = re.compile(r"\\begin\s*\{([pbBv]?matrix|array)\}(?:\{[^{}]*\})?(.*)\\end\s*\{\1\}", re.DOTALL)
_ROW_END = re.compile(r"\\\\(?:\s*\[[^\]]*\])?")
_PLUS_MINUS = re.compile(r"\\(?:pm|mp)(?![a-z])")
_OPENING = {"(": "(", "[": "[", "\\{": "{", "{": "{", "\\langle": "<"}
_CLOSING = {")": ")", "]": "]", "\\}": "}", "}": "}", "\\rangle": ">"}
_INTERVALS = ("()", "[]", "(]", "[)")


def read(text: str) -> Answer:
    """What ``text`` says.

    Raises:
        UnreadableError: saying why it cannot be read.
    """
    if len(text) > _MAX_CHARS:
        raise UnreadableError(f"it is {len(text)} characters long, the limit is {_MAX_CHARS}")
    cleaned = clean(text)
    plain = without_text(cleaned)
    if not plain:
        raise UnreadableError("it is empty")
    if is_a_solution(plain):
        raise UnreadableError(f"it has more than {MAX_WORDS} words, as a solution has")
    try:
        return _read_list(without_thousands(clean(plain) if is_only_text(cleaned) else cleaned))
    except UnreadableError:
        if is_prose(plain):
            return as_words(plain)
        raise


def _read_list(text: str) -> Answer:
    """Items between commas, semicolons, ``and`` and ``or``; or the only one."""
    pieces, marks = split(text, _COMMA)
    pieces = [piece for i, piece in enumerate(pieces) if piece or not _is_doubled(i, marks)]
    items = [item for piece in pieces for item in _read_signs(piece)]
    if len(items) == 1:
        return items[0]
    return _joined(list(dict.fromkeys(items)) if "\\pm" in text else items, marks)


def _is_doubled(index: int, marks: list[str]) -> bool:
    """Whether only a comma stands before this ``and``: ``1, and 2``."""
    return 0 < index < len(marks) and marks[index - 1] == "," and marks[index] in ("and", "or")


def _joined(items: list[Answer], marks: list[str]) -> Answer:
    """``x = 1, 2`` gives both to x; ``x < 1 or x > 2`` is one set."""
    first = items[0]
    if isinstance(first, Claim) and first.name and not any(isinstance(i, Claim | Relation) for i in items[1:]):
        items = [first, *(Claim(first.name, (item,)) for item in items[1:])]
    claims = [item for item in items if isinstance(item, Claim)]
    if "and" not in marks and len(claims) == len(items) and len({claim.name for claim in claims}) == 1:
        values = [claim.values[0] for claim in claims]
        if all(isinstance(value, Group) and value.brackets in _INTERVALS for value in values):
            return Claim(claims[0].name, (Union(tuple(values)),))
    return Group("", tuple(items))


def _read_signs(text: str) -> list[Answer]:
    """Both readings of ``\\pm``; the only one of anything else."""
    if not _PLUS_MINUS.search(text):
        return [_read_item(text)]
    plus = text.replace("\\pm", "+").replace("\\mp", "-")
    minus = text.replace("\\pm", "-").replace("\\mp", "+")
    return [_read_item(plus), _read_item(minus)]


def _read_item(text: str) -> Answer:
    if choice := choice_of(text):
        return Claim(f"({choice[0]})", (_read_item(choice[1]),))
    sides, signs = split(text, _SIGNS)
    signs = [_SAME_SIGN.get(sign, sign) for sign in signs]
    if signs and not sides[0] and signs[0] in ("=", "~"):
        sides, signs = sides[1:], signs[1:]
    if not signs:
        return _read_value(sides[0])
    if not all(sides):
        raise UnreadableError("a side of a relation is empty")
    return _read_equation(sides, signs) if set(signs) <= {"=", "~"} else _read_inequality(sides, signs)


def _read_equation(sides: list[str], signs: list[str]) -> Answer:
    if len(sides) == 2 and is_name(sides[1]) and not is_name(sides[0]):
        sides = sides[::-1]
    named = next((i for i, side in enumerate(sides[:-1]) if not is_name(side)), len(sides) - 1)
    values = [_read_list(side) if named else _read_value(side) for side in sides[named:]]
    if signs == ["="] and not named and any(map(_variables, values)):
        return Relation(tuple(values), ("=",))
    exact = values[: [*signs[named:], "~"].index("~") + 1]
    for rounded in values[len(exact) :]:
        _check_near(exact[-1], rounded)
    return Claim("=".join(map(name_of, sides[:named])), tuple(exact))


def _check_near(exact: Answer, rounded: Answer) -> None:
    """What follows an approximation sign is a remark, if it is true."""
    if isinstance(exact, Quantity) and isinstance(rounded, Quantity):
        with contextlib.suppress(ArithmeticError, KeyError):
            if are_near(share(exact), share(rounded)):
                return
    raise UnreadableError("the sides of an approximation are not near each other")


def _read_inequality(sides: list[str], signs: list[str]) -> Answer:
    """``1 < x`` as an interval for x, where a name stands alone between values; else a relation."""
    if "~" in signs:
        raise UnreadableError("an approximation in an inequality")
    if signs[0] in (">", ">="):
        sides, signs = sides[::-1], [FLIPPED[sign] for sign in reversed(signs)]
    at = next((i for i, side in enumerate(sides) if is_name(side)), None)
    is_upward = all(sign in ("<", "<=") for sign in signs)
    if at is None or not is_upward or len(sides) > 3 or (len(sides) == 3 and at != 1):
        return Relation(tuple(_read_value(side) for side in sides), tuple(signs))
    below = _read_value(sides[at - 1]) if at > 0 else Quantity(_MINUS_INFINITY)
    above = _read_value(sides[at + 1]) if at + 1 < len(sides) else Quantity(_INFINITY)
    opens = "[" if at > 0 and signs[at - 1] == "<=" else "("
    closes = "]" if at + 1 < len(sides) and signs[at] == "<=" else ")"
    return Claim(name_of(sides[at]), (Group(opens + closes, (below, above)),))


def _read_value(text: str) -> Answer:
    parts, _ = split(text, _CUP)
    if len(parts) > 1:
        return Union(tuple(_read_value(part) for part in parts))
    if text == "\\mathbb{R}":
        return Group("()", (Quantity(_MINUS_INFINITY), Quantity(_INFINITY)))
    if text == "\\emptyset":
        return Group("{}", ())
    if matrix := _MATRIX.fullmatch(text):
        return _read_matrix(matrix[2])
    return words_of(text) or _read_brackets(text) or _read_quantity(text)


def _read_brackets(text: str) -> Answer | None:
    """A group, if one pair of brackets holds all of ``text``; a single thing in parentheses is that thing."""
    spans = pairs(text)
    if not spans or spans[0][0] != 0 or spans[0][3] != len(text):
        return None
    _, start, end, _ = spans[0]
    opening, closing, inner = text[:start].strip(), text[end:].strip(), text[start:end].strip()
    if opening == "\\{":
        return _read_set(inner)
    if opening not in _OPENING or closing not in _CLOSING:
        return None
    pieces, _ = split(inner, _COMMA)
    if len(pieces) > 1:
        return Group(_OPENING[opening] + _CLOSING[closing], tuple(map(_read_list, pieces)))
    is_only_around = (opening, closing) in (("(", ")"), ("{", "}")) or inner.startswith("\\begin")
    return _read_list(inner) if is_only_around else None


def _read_set(inner: str) -> Answer:
    if not inner:
        return Group("{}", ())
    parts, _ = split(inner, _BAR)
    if len(parts) == 2 and is_name(split(parts[0], _SIGNS)[0][0]):  # { x | x > 5 }
        condition = _read_list(parts[1])
        return condition.values[0] if isinstance(condition, Claim) else condition
    pieces, _ = split(inner, _COMMA)
    return Group("{}", tuple(item for piece in pieces for item in _read_signs(piece)))


def _read_matrix(body: str) -> Answer:
    rows = [row.strip() for row in _ROW_END.split(body)]
    cells = tuple(tuple(_read_value(cell.strip()) for cell in row.split("&")) for row in rows if row)
    if not cells or len({len(row) for row in cells}) > 1:
        raise UnreadableError("a matrix with rows of different lengths")
    return Matrix(cells)


def _read_quantity(text: str) -> Quantity:
    rest, factor, unit = split_unit(text)
    value = parse_expression(rest)
    if factor != 1:
        value = Call("mul", (value, Number(Fraction(factor))))
    return Quantity(value, unit)


def share(quantity: Quantity) -> Expression:
    """Its value; of a percentage the hundredth."""
    hundred = Number(Fraction(100 if quantity.unit == PERCENT else 1))
    return Call("div", (quantity.value, hundred))


def _variables(answer: Answer) -> set[str]:
    return variables(answer.value) if isinstance(answer, Quantity) else set()


def variables(expression: Expression) -> set[str]:
    """Names of the variables in it."""
    if isinstance(expression, Symbol):
        return {expression.name}
    return set() if isinstance(expression, Number) else set().union(*map(variables, expression.args))

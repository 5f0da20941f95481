"""The verifier: is this text an expression that uses the given numbers exactly once and hits the target?

Grammar (ASCII only; blanks, tabs and line ends between tokens are free)::

    sum     = product { ("+" | "-") product }
    product = atom { ("*" | "/") atom }
    atom    = integer | "(" sum ")"

There is no unary operator (``-3+5`` is refused with reason ``unary``: a sign would be a free extra
operation), no power, no ``//``, no decimal point and no juxtaposition. Integers have at most 9 digits and
no leading zero. Arithmetic is exact (``fractions.Fraction``), so ``8/(3-8/3)`` is 24 and nothing is equal
"up to 1e-5". Text is never evaluated as code, and the limits below bound the work before any of it is done.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

MAX_CHARS = 512
MAX_TOKENS = 64
MAX_DEPTH = 32
MAX_DIGITS = 9

REASONS = (
    "ok",
    "empty",  # nothing but white space
    "too_long",  # more characters, tokens or digits than the limits allow
    "bad_char",  # a character outside digits, + - * / ( ) and white space
    "equation",  # an equals sign: the answer is an expression, not an equation
    "unary",  # an operator sign where an operand must stand
    "too_deep",  # parentheses nested too deeply
    "syntax",  # everything else that is not an expression, leading zeros included
    "bad_numbers",  # not exactly the given numbers, each once
    "div_zero",
    "wrong_value",
)

_BLANK = " \t\r\n"
_DIGITS = "0123456789"
_OPERATORS = "+-*/"
_PUNCTUATION = "+-*/()"


@dataclass(frozen=True, slots=True)
class Verdict:
    """``reason`` is one of ``REASONS``; ``correct`` exactly when it is ``ok``."""

    correct: bool
    reason: str


class _Refused(Exception):
    """Carries a reason code out of the parser."""


def verify(answer: str, numbers: Sequence[int], target: int) -> Verdict:
    """Judge one answer. Never raises for any ``str``; linear in its length, and capped.

    Args:
        answer: what stands inside the answer tags; an expression such as ``(8*5)-12``.
        numbers: the given numbers; each must appear exactly once, as a whole token.
        target: the value to reach, exactly.
    """
    try:
        reason = _judge(answer, numbers, target)
    except _Refused as refused:
        reason = str(refused)
    return Verdict(reason == "ok", reason)


def parse_postfix(text: str) -> list[str | int] | None:
    """Operands and operators of an expression in postfix order; None for anything else. Same limits as ``verify``."""
    try:
        return _Parser(_tokenize(text)).parse()
    except _Refused:
        return None


def evaluate_postfix(postfix: list[str | int]) -> int | Fraction | None:
    """Exact value of what ``parse_postfix`` returned; None when it divides by zero."""
    try:
        value = _evaluate(postfix)
    except _Refused:
        return None
    return value.numerator if value.denominator == 1 else value


def _judge(answer: str, numbers: Sequence[int], target: int) -> str:
    postfix = _Parser(_tokenize(answer)).parse()
    if sorted(item for item in postfix if isinstance(item, int)) != sorted(numbers):
        return "bad_numbers"
    return "ok" if _evaluate(postfix) == target else "wrong_value"


def _tokenize(text: str) -> list[str | int]:
    """Integers as ``int``, everything else as one-character strings."""
    if len(text) > MAX_CHARS:
        raise _Refused("too_long")
    tokens: list[str | int] = []
    position = 0
    while position < len(text):
        char = text[position]
        if char in _DIGITS:
            end = _end_of_digits(text, position)
            tokens.append(_integer(text[position:end]))
            position = end
            continue
        if char in _PUNCTUATION:
            tokens.append(char)
        elif char not in _BLANK:
            raise _Refused("equation" if char == "=" else "bad_char")
        position += 1
    if len(tokens) > MAX_TOKENS:
        raise _Refused("too_long")
    return tokens


def _end_of_digits(text: str, start: int) -> int:
    end = start + 1
    while end < len(text) and text[end] in _DIGITS:
        end += 1
    return end


def _integer(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise _Refused("too_long")
    if digits[0] == "0" and len(digits) > 1:
        raise _Refused("syntax")
    return int(digits)


class _Parser:
    """Recursive descent; emits operands and operators in postfix order."""

    def __init__(self, tokens: list[str | int]) -> None:
        self._tokens = tokens
        self._next = 0
        self._postfix: list[str | int] = []

    def parse(self) -> list[str | int]:
        if not self._tokens:
            raise _Refused("empty")
        self._sum(0)
        if self._next < len(self._tokens):
            raise _Refused("syntax")
        return self._postfix

    def _peek(self) -> str | int | None:
        return self._tokens[self._next] if self._next < len(self._tokens) else None

    def _sum(self, depth: int) -> None:
        self._product(depth)
        while (operator := self._peek()) in ("+", "-"):
            self._next += 1
            self._product(depth)
            self._postfix.append(operator)

    def _product(self, depth: int) -> None:
        self._atom(depth)
        while (operator := self._peek()) in ("*", "/"):
            self._next += 1
            self._atom(depth)
            self._postfix.append(operator)

    def _atom(self, depth: int) -> None:
        token = self._peek()
        if isinstance(token, int):
            self._next += 1
            self._postfix.append(token)
            return
        if token != "(":
            raise _Refused("unary" if token in ("+", "-") else "syntax")
        if depth == MAX_DEPTH:
            raise _Refused("too_deep")
        self._next += 1
        self._sum(depth + 1)
        if self._peek() != ")":
            raise _Refused("syntax")
        self._next += 1


def _evaluate(postfix: list[str | int]) -> Fraction:
    stack: list[Fraction] = []
    for item in postfix:
        if isinstance(item, int):
            stack.append(Fraction(item))
        else:
            right = stack.pop()
            stack.append(_apply(item, stack.pop(), right))
    return stack.pop()


def _apply(operator: str, left: Fraction, right: Fraction) -> Fraction:
    if operator == "+":
        return left + right
    if operator == "-":
        return left - right
    if operator == "*":
        return left * right
    if right == 0:
        raise _Refused("div_zero")
    return left / right

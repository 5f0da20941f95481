"""Whether an answer is the known one. Values decide, to the last digit; a rounded value is another value."""

import random
from collections.abc import Iterator, Sequence
from fractions import Fraction

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
    Words,
)
from reasonrl_math.answers.numbers import (
    NotRationalError,
    TooLargeError,
    UndefinedError,
    Values,
    are_close,
    exact,
    folded,
)
from reasonrl_math.answers.shapes import FLIPPED, share, variables
from reasonrl_math.answers.units import PERCENT

_DRAWS = 24
_ENOUGH = 8
_SCALES = (1, 30, 2000)
_ORDERED = ("()", "<>")


def agree(known: Answer, answer: Answer) -> bool:
    """Whether ``answer`` says what ``known`` says."""
    known, answer = _plain(known), _plain(answer)
    if known == answer:
        return True
    if isinstance(known, Claim) or isinstance(answer, Claim):
        return _claims_agree(known, answer)
    if isinstance(known, Words) and isinstance(answer, Quantity):
        known = _product(known)
    elif isinstance(known, Quantity) and isinstance(answer, Words):
        answer = _product(answer)
    if isinstance(known, Relation) and isinstance(answer, Relation):
        return _relations_agree(known, answer)
    if isinstance(known, Quantity) and isinstance(answer, Quantity):
        return _quantities_agree(known, answer)
    if isinstance(known, Group) and isinstance(answer, Group):
        return _groups_agree(known, answer)
    if isinstance(known, Union) and isinstance(answer, Union):
        return _pair_up(known.parts, answer.parts)
    if isinstance(known, Matrix) and isinstance(answer, Matrix):
        pairs = zip(known.rows, answer.rows, strict=False)
        return len(known.rows) == len(answer.rows) and all(_all_agree(one, other) for one, other in pairs)
    return False


def _plain(answer: Answer) -> Answer:
    """The one member of a set; the value of ``2 + 3 = 5``, whose sides agree. ``2 = 5`` stays what it is."""
    if isinstance(answer, Group) and answer.brackets == "{}" and len(answer.items) == 1:
        return _plain(answer.items[0])
    if isinstance(answer, Claim) and is_consistent(answer):
        return Claim(answer.name, answer.values[:1]) if answer.name else _plain(answer.values[0])
    return answer


def _product(words: Words) -> Answer:
    """``ab`` as a product, where the other side is a formula."""
    if len(words.text) > 3 or not words.text.isalpha() or not words.text.isascii():
        return words
    return Quantity(parse_expression(" ".join(words.text)))


def is_consistent(claim: Claim) -> bool:
    """Whether all that it says a name is, is the same."""
    return all(agree(claim.values[0], value) for value in claim.values[1:])


def _all_agree(known: Sequence[Answer], answer: Sequence[Answer]) -> bool:
    return len(known) == len(answer) and all(map(agree, known, answer))


def _claims_agree(known: Answer, answer: Answer) -> bool:
    """A name that only one of the two gives may be left out; different names are different answers."""
    if any(isinstance(side, Claim) and len(side.values) > 1 for side in (known, answer)):
        return False  # a claim that contradicts itself
    if _is_the_letter_of(known, answer) or _is_the_letter_of(answer, known):
        return True
    if isinstance(known, Claim) and isinstance(answer, Claim):
        if _key(known.name) == _key(answer.name):
            return agree(known.values[0], answer.values[0])
    elif isinstance(known, Claim) and not isinstance(answer, Relation):
        return agree(known.values[0], answer)
    elif isinstance(answer, Claim) and not isinstance(known, Relation):
        return agree(known, answer.values[0])
    one, other = _equation(known), _equation(answer)
    return one is not None and other is not None and _relations_agree(one, other)


def _is_the_letter_of(answer: Answer, choice: Answer) -> bool:
    """``B`` for ``(B) 5``."""
    if not isinstance(answer, Quantity) or not isinstance(answer.value, Symbol) or answer.unit:
        return False
    return isinstance(choice, Claim) and choice.name == f"({answer.value.name})"


def _key(name: str) -> str:
    return name.casefold() if len(name) > 1 else name


def _equation(answer: Answer) -> Relation | None:
    """``y = 2x`` as an equation in two variables; None for ``x = 5``, which is a solution."""
    if isinstance(answer, Relation):
        return answer
    value = answer.values[0] if isinstance(answer, Claim) else None
    if not isinstance(answer, Claim) or not isinstance(value, Quantity) or not variables(value.value):
        return None
    try:
        return Relation((Quantity(parse_expression(answer.name)), value), ("=",))
    except UnreadableError:
        return None


def _relations_agree(known: Relation, answer: Relation) -> bool:
    flipped = Relation(answer.sides[::-1], tuple(FLIPPED[sign] for sign in reversed(answer.signs)))
    for candidate in (answer, flipped):
        if known.signs == candidate.signs:
            if _all_agree(known.sides, candidate.sides):
                return True
            if len(known.signs) == 1 and _are_multiples(known, candidate):
                return True
    return False


def _are_multiples(known: Relation, answer: Relation) -> bool:
    """Whether left minus right is the same up to a factor: ``x + y = 1`` and ``2x + 2y = 2``."""
    one, other = _difference(known), _difference(answer)
    if one is None or other is None:
        return False
    for values in _draws(sorted(variables(one) | variables(other))):
        try:
            ratio = exact(one, values) / exact(other, values)
        except (ArithmeticError, KeyError):
            continue
        if ratio and (ratio > 0 or known.signs[0] in ("=", "!=")):
            return are_equal(one, Call("mul", (Number(ratio), other)))
        return False
    return False


def _difference(relation: Relation) -> Expression | None:
    left, right = relation.sides
    if isinstance(left, Quantity) and isinstance(right, Quantity):
        return Call("add", (left.value, Call("neg", (right.value,))))
    return None


def _quantities_agree(known: Quantity, answer: Quantity) -> bool:
    """A unit that only one of the two gives may be left out; different units are different answers."""
    if known.unit == answer.unit:
        return are_equal(known.value, answer.value)
    if "" not in (known.unit, answer.unit):
        return False
    if PERCENT in (known.unit, answer.unit):
        return _percentages_agree(known, answer)
    if answer.unit.startswith("base ") and answer.unit != "base 10":
        return False  # digits without a base have base 10
    return are_equal(known.value, answer.value)


def _percentages_agree(known: Quantity, answer: Quantity) -> bool:
    """``50%`` is 0.5. The sign may also be left out after it, or added to a number above 1, as any unit."""
    if are_equal(share(known), share(answer)):
        return True
    is_a_unit = known.unit == PERCENT or _is_above_one(known.value)
    return is_a_unit and are_equal(known.value, answer.value)


def _is_above_one(expression: Expression) -> bool:
    number = folded(expression)
    return isinstance(number, Number) and abs(number.value) > 1


def _groups_agree(known: Group, answer: Group) -> bool:
    if not known.brackets and answer.brackets in ("()", "[]"):
        return _all_agree(known.items, answer.items)
    if known.brackets in _ORDERED and answer.brackets in ("", *_ORDERED):
        return _all_agree(known.items, answer.items)
    if known.brackets in ("", "{}") and answer.brackets in ("", "{}"):
        names = {item.name for item in known.items if isinstance(item, Claim)}
        if len(names) > 1 and not all(isinstance(item, Claim) for item in answer.items):
            return not answer.brackets and _all_agree(known.items, answer.items)  # which is which, order alone tells
        is_set = "{}" in (known.brackets, answer.brackets)
        return _pair_up(*map(_distinct, (known.items, answer.items))) if is_set else _pair_up(known.items, answer.items)
    return known.brackets == answer.brackets and _all_agree(known.items, answer.items)


def _distinct(items: Sequence[Answer]) -> list[Answer]:
    kept: list[Answer] = []
    for item in items:
        if not any(agree(other, item) for other in kept):
            kept.append(item)
    return kept


def _pair_up(known: Sequence[Answer], answer: Sequence[Answer]) -> bool:
    """Whether each finds one of its own on the other side, in any order."""
    left = list(answer)
    if len(known) != len(left):
        return False
    for item in known:
        match = next((i for i, other in enumerate(left) if agree(item, other)), None)
        if match is None:
            return False
        del left[match]
    return True


def are_equal(known: Expression, answer: Expression) -> bool:
    """Whether two expressions have the same value, for all values of their variables."""
    try:
        known, answer = folded(known), folded(answer)
    except UndefinedError:
        return False
    if known == answer or (isinstance(known, Number) and isinstance(answer, Number)):
        return known == answer
    names = sorted(variables(known) | variables(answer))
    is_complex = _has_imaginary(known) or _has_imaginary(answer)
    verdict = None if is_complex else _agree_on_draws(known, answer, names, is_real=True)
    return verdict if verdict is not None else bool(_agree_on_draws(known, answer, names, is_real=False))


def _agree_on_draws(known: Expression, answer: Expression, names: list[str], *, is_real: bool) -> bool | None:
    """Whether they agree wherever both have a value; None if that is nowhere."""
    agreed = 0
    for values in _draws(names):
        verdict = _agree_at(known, answer, values, is_real=is_real)
        if verdict is False:
            return False
        agreed += verdict is True
        if agreed == _ENOUGH:
            break
    return True if agreed else None


def _agree_at(known: Expression, answer: Expression, values: Values, *, is_real: bool) -> bool | None:
    try:
        return exact(known, values) == exact(answer, values)
    except (UndefinedError, TooLargeError):
        return None
    except NotRationalError:
        pass
    try:
        return are_close(known, answer, values, is_real=is_real)
    except (UndefinedError, TooLargeError):
        return None


def _draws(names: list[str]) -> Iterator[Values]:
    """The same values for the same names: on both sides of zero, within 1 and far beyond."""
    drawn = random.Random(" ".join(names))
    for number in range(_DRAWS if names else 1):
        scale = _SCALES[number // 2 % len(_SCALES)]
        signs = ((1,), (-1,))[number % 2] if number < _DRAWS // 2 else (1, -1)
        yield {
            name: drawn.choice(signs) * Fraction(drawn.randint(2, 10**6) * scale, drawn.choice((999_983, 1_000_003)))
            for name in names
        }


def _has_imaginary(expression: Expression) -> bool:
    if not isinstance(expression, Call):
        return False
    return expression.name == "i" or any(map(_has_imaginary, expression.args))

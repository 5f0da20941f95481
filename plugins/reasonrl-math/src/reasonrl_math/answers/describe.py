"""In words, how an answer was read."""

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
)
from reasonrl_math.answers.shapes import variables
from reasonrl_math.answers.units import PERCENT

_NOTATIONS = {
    "integer": "a whole number",
    "decimal": "a decimal",
    "scientific": "a number with an exponent",
    "mixed number": "a mixed number",
}


def describe(answer: Answer) -> str:
    """Such as ``a fraction`` or ``a list of 2 in any order``."""
    if isinstance(answer, Quantity):
        return _quantity(answer)
    if isinstance(answer, Group):
        return _group(answer)
    if isinstance(answer, Claim):
        what = describe(answer.values[-1])
        return f"{what}, for {answer.name}" if answer.name else what
    if isinstance(answer, Relation):
        return "an equation" if set(answer.signs) == {"="} else "an inequality"
    if isinstance(answer, Matrix):
        return f"a {len(answer.rows)} x {len(answer.rows[0])} matrix"
    return "a union of sets" if isinstance(answer, Union) else "text"


def _quantity(quantity: Quantity) -> str:
    if quantity.unit == PERCENT:
        return "a percentage"
    what = _expression(quantity.value)
    if quantity.unit.startswith("base "):
        return f"{what} in {quantity.unit}"
    return f"{what} of {quantity.unit}" if quantity.unit else what


def _expression(expression: Expression) -> str:
    if isinstance(expression, Number):
        return _NOTATIONS[expression.notation]
    if isinstance(expression, Call) and expression.name == "neg":
        inner = _expression(expression.args[0])
        return inner if inner in _NOTATIONS.values() or inner == "a fraction" else _formula(expression)
    if isinstance(expression, Call) and expression.name == "div":
        are_whole = all(isinstance(arg, Number) and arg.notation == "integer" for arg in expression.args)
        return "a fraction" if are_whole else _formula(expression)
    return "a letter" if isinstance(expression, Symbol) else _formula(expression)


def _formula(expression: Expression) -> str:
    names = ", ".join(sorted(variables(expression)))
    return f"an expression in {names}" if names else "an exact expression"


def _group(group: Group) -> str:
    count = len(group.items)
    if group.brackets == "":
        return f"a list of {count} in any order"
    if group.brackets == "{}":
        return f"a set of {count}" if count else "the empty set"
    if count != 2:
        return f"{count} values in order"
    return {"()": "a pair in order, or an open interval", "[]": "a closed interval"}.get(group.brackets, "an interval")

"""Answers that must not reach a scorer: nine scorers of reasoning-gym evaluate the answer as a Python expression.

``binary_matrix``, ``n_queens``, ``spiral_matrix`` and ``string_insertion`` call ``eval``; ``countdown``, ``puzzle24``,
``polynomial_multiplication`` and the two integrations call sympy's ``parse_expr``, which calls ``eval``. What a model
writes is data, so these scorers only ever see text of an alphabet in which no name can be written but those of a few
functions. Anything else is a wrong answer.
"""

import re
from collections.abc import Mapping

_NUMBERS = r"[0-9 \t\r\n+\-*/().]*"
_MATRIX = r"[0-9 \t\r\n\[\],]*"
_WORDS = frozenset(
    {"x", "X", "y", "z", "u", "v", "w", "a", "b", "C", "E", "pi", "e", "exp", "log", "ln", "sqrt", "Abs"}
    | {"sin", "cos", "tan", "sec", "csc", "cot", "sinh", "cosh", "tanh", "asin", "acos", "atan"}
)
_FORMULA = re.compile(r"[A-Za-z0-9 \t\r\n+\-*/^(),.]*")
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9]*")

ALPHABETS: Mapping[str, str] = {
    "binary_matrix": _MATRIX,
    "spiral_matrix": _MATRIX,
    "n_queens": r"[0-9Q_ \t\r\n\[\],'\"]*",
    "string_insertion": r"[A-Z \t\r\n\[\],'\"]*",
    "countdown": _NUMBERS,
    "puzzle24": _NUMBERS,
}
FORMULAS = frozenset({"intermediate_integration", "polynomial_multiplication", "simple_integration"})
GUARDED = frozenset(ALPHABETS) | FORMULAS
MAX_GUARDED_CHARS = 1000
_MAX_DEPTH = 50


def is_harmless(dataset: str, answer: str) -> bool:
    """Whether the scorer of the dataset may see this answer."""
    if dataset not in GUARDED:
        return True
    if len(answer) > MAX_GUARDED_CHARS or _depth(answer) > _MAX_DEPTH:
        return False
    if dataset in FORMULAS:
        return _is_formula(answer)
    return re.fullmatch(ALPHABETS[dataset], answer) is not None and not _has_power(answer)


def _is_formula(answer: str) -> bool:
    # A name after a number ("2x") is a product, after a dot an attribute.
    if not _FORMULA.fullmatch(answer) or re.search(r"\.\s*[A-Za-z(]", answer) or _is_tower(answer):
        return False
    return all(name in _WORDS for name in _NAME.findall(answer))


def _has_power(answer: str) -> bool:
    """``9**9**9`` is short and takes longer than the universe has; these tasks have no powers."""
    return re.search(r"\*\s*\*", answer) is not None


def _is_tower(answer: str) -> bool:
    """A power in an exponent, or an exponent of more than three digits."""
    power = r"(?:\*\s*\*|\^)"
    chain = rf"{power}[\s(+-]*[A-Za-z0-9.]+[\s)]*{power}"
    nested = rf"{power}\s*\([^)]*{power}"
    return re.search(rf"{chain}|{nested}|{power}[\s(+-]*[0-9]{{4,}}", answer) is not None


def _depth(text: str) -> int:
    depth = deepest = 0
    for character in text:
        depth += (character in "([") - (character in ")]")
        deepest = max(deepest, depth)
    return deepest

"""Whether a program printed what it should. Runs outside of the sandbox."""

import re

TOLERANCE = 1e-6
_DECIMAL = re.compile(r"[+-]?(\d+\.\d*|\.\d+)([eE][+-]?\d+)?|[+-]?\d+[eE][+-]?\d+")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


def same_output(expected: str, got: str) -> bool:
    """Compare word by word: white space does not count, decimal fractions may differ by one part in a million."""
    want, have = expected.split(), got.split()
    return len(want) == len(have) and all(_same_word(a, b) for a, b in zip(want, have, strict=True))


def _same_word(want: str, have: str) -> bool:
    if want == have:
        return True
    if len(have) > 400 or not (_DECIMAL.fullmatch(want) and _NUMBER.fullmatch(have)):
        return False
    one, two = float(want), float(have)
    return abs(one - two) <= TOLERANCE * max(1.0, abs(one))

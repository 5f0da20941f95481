"""A second judge of Countdown answers, on Python's own parser, and the answers both judges are compared on.

It shares no code and no method with the plugin's verifier: Python's ``ast`` does the parsing (the text is
never compiled or run), the limits are counted on the raw text, and the tree is walked twice, once for the
numbers and once for the value.
"""

import ast
import random
from collections import Counter
from collections.abc import Sequence
from fractions import Fraction
from itertools import accumulate, groupby

ALLOWED = frozenset("0123456789+-*/() \t\r\n")
OPERATIONS = {
    ast.Add: lambda a, b: a + b,
    ast.Sub: lambda a, b: a - b,
    ast.Mult: lambda a, b: a * b,
    ast.Div: lambda a, b: a / b,
}


def judge(answer: str, numbers: Sequence[int], target: int) -> str:
    """``refused`` (no expression within the limits), ``bad_numbers``, ``div_zero``, ``wrong_value`` or ok."""
    if not _is_within_limits(answer):
        return "refused"
    try:
        tree = ast.parse(" ".join(answer.split()), mode="eval").body
    except SyntaxError:
        return "refused"
    if not all(_is_allowed(node) for node in ast.walk(tree)):
        return "refused"
    used = Counter(node.value for node in ast.walk(tree) if isinstance(node, ast.Constant))
    if used != Counter(numbers):
        return "bad_numbers"
    try:
        return "ok" if _value(tree) == target else "wrong_value"
    except ZeroDivisionError:
        return "div_zero"


def _is_within_limits(answer: str) -> bool:
    if len(answer) > 512 or not ALLOWED.issuperset(answer):
        return False
    runs = ["".join(run) for is_digit, run in groupby(answer, str.isdigit) if is_digit]
    if any(len(run) > 9 or (len(run) > 1 and run.startswith("0")) for run in runs):
        return False
    num_tokens = len(runs) + sum(answer.count(char) for char in "+-*/()")
    depth = max(accumulate(((c == "(") - (c == ")") for c in answer), initial=0))
    return num_tokens <= 64 and depth <= 32


def _is_allowed(node: ast.AST) -> bool:
    if isinstance(node, ast.Constant):
        return type(node.value) is int
    return isinstance(node, (ast.BinOp, *OPERATIONS))


def _value(node: ast.expr) -> Fraction:
    if isinstance(node, ast.BinOp):
        return OPERATIONS[type(node.op)](_value(node.left), _value(node.right))
    return Fraction(node.value)


# fmt: off
HOSTILE = (
    "", " ", "\n", "()", "(", ")", "+", "-", "**", "//", "(((", ")))", ")(", "1,2", "3**4", "7//2",
    "1.5", "4.*2", "10.0*5", "6.4-2", "-3+5", "5*-3+20", "+3+5", "--3", "2**-1*8", "99**99**9",
    "9**9**9**9", "3(4)", "(3)(4)", "3 4", "٣+٤", "３+４", "²+3", "3×4", "3÷4", "3−4", "1_0+2", "1e3",
    "0x10", "0b1", "1j", "08", "00", "0", "7 = 7", "3+4=7", "3+4;", "__import__('os')", "lambda: 1",
    "3 if 4 else 5", "3<4", "~3", "3%4", "3@4", "3&4", "3|4", "3^4", "not 3", "3+4#", "3+\\\n4", "3+\n4",
    "\t3 + 4\r\n", "\x003+4", "3+4\x00", "\ufeff3+4", "3\u00a0+4", "3\u2028+4", "3\x0b+4", "3\x0c+4",
    "3\x1f+4", "8/(3-3)", "0/0", "1/0", "(3+4", "3+4)", "3+*4", "3*+4", "3/-4", "((3+4))", "9" * 5000,
    "9" * 10, "9" * 9, "(" * 300, "(" * 300 + "3+4" + ")" * 300, "(" * 32 + "3" + ")" * 32,
    "(" * 33 + "3" + ")" * 33, "-" * 50000 + "1", "+1" * 200000, "1" + "+1" * 31, "1" + "+1" * 32,
    " " * 512, "1" + " " * 511, "1" + " " * 512, "/".join(["999999999"] * 32), "<answer>3+4</answer>",
    "\ud800", "🎉", "None", "True", "target",
)
# fmt: on
_NOISE = "0123456789+-*/()  \t\n.=_eE,x×−٣"


def random_case(rng: random.Random) -> tuple[str, list[int], int]:
    """An answer, numbers and a target: 40% well-formed, 25% damaged, 20% hostile, 15% noise."""
    numbers = [rng.choice((rng.randint(1, 20), rng.randint(1, 99))) for _ in range(rng.randint(1, 6))]
    for _ in range(8):
        text, value = _expression(numbers, rng)
        if value is not None and value.denominator == 1:
            break
    is_reached = value is not None and value.denominator == 1 and rng.random() < 0.9
    target = int(value) if value is not None and is_reached else rng.randint(0, 100)
    kind = rng.random()
    if kind < 0.4:
        return _misuse(text, numbers, rng), numbers, target
    if kind < 0.65:
        return _damaged(text, rng), numbers, target
    if kind < 0.85:
        return _hostile(text, numbers, rng), numbers, target
    return "".join(rng.choices(_NOISE, k=rng.randint(0, 30))), numbers, target


def _expression(numbers: list[int], rng: random.Random) -> tuple[str, Fraction | None]:
    """A random expression over all numbers and its value (None = divides by zero)."""
    if len(numbers) == 1:
        text = str(numbers[0])
        return (f"({text})" if rng.random() < 0.1 else text), Fraction(numbers[0])
    shuffled = rng.sample(numbers, len(numbers))
    cut = rng.randint(1, len(numbers) - 1)
    left, left_value = _expression(shuffled[:cut], rng)
    right, right_value = _expression(shuffled[cut:], rng)
    operator = rng.choice("+-*/")
    space = rng.choice(("", "", " ", "\n"))
    text = f"({left}{space}{operator}{space}{right})"
    if left_value is None or right_value is None or (operator == "/" and right_value == 0):
        return text, None
    by_symbol = dict(zip("+-*/", OPERATIONS.values(), strict=True))
    return text, by_symbol[operator](left_value, right_value)


def _misuse(text: str, numbers: list[int], rng: random.Random) -> str:
    """Mostly the text as it is; sometimes without its outer parentheses or with a number too many."""
    kind = rng.random()
    if kind < 0.3 and text.startswith("("):
        return text[1:-1]
    if kind < 0.4:
        return f"{text}{rng.choice('+-*/')}{rng.choice(numbers)}"
    return text


def _damaged(text: str, rng: random.Random) -> str:
    for _ in range(rng.randint(1, 3)):
        at = rng.randint(0, len(text))
        keep = at + rng.randint(0, 1)
        text = text[:at] + rng.choice(("", rng.choice(_NOISE))) + text[keep:]
    return text


def _hostile(text: str, numbers: list[int], rng: random.Random) -> str:
    kind = rng.random()
    if kind < 0.5:
        return rng.choice(HOSTILE)
    glue = rng.choice(("**", "//", ".", "_", "", " ", "e", "+-", "--", "*-", ")(", ",", "=", "++"))
    joined = glue.join(map(str, numbers))
    if kind < 0.75:
        return joined
    depth = rng.randint(1, 40)
    return rng.choice((text + joined, f"{text}={text}", f"-{text}", "(" * depth + text + ")" * depth, f"{text}*1"))

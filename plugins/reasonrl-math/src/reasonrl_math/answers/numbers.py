"""The value of an expression: exactly where it is rational, else to as many digits as its parts call for."""

import functools
import math
import operator
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import mpmath

from reasonrl_math.answers.nodes import Call, Expression, Number, Symbol

MAX_BITS = 120_000
"""Of an exact number: 10^400 and 2004! have room, 9^9^9 has not."""

_MAX_POWER = 2**20
_MAX_WIDTH, _MAX_WIDTH_OF_A_DRAW = 2**15, 2**11
_SCOUT_BITS = 64
Values = Mapping[str, Fraction]


class UndefinedError(ArithmeticError):
    """It has no value: a division by zero, or outside of the real numbers."""


class TooLargeError(ArithmeticError):
    """A number with too many digits to compute."""


class NotRationalError(ArithmeticError):
    """A root, a logarithm, pi: no fraction."""


def exact(expression: Expression, values: Values) -> Fraction:
    """Its value as a fraction.

    Raises:
        NotRationalError: if the value is not rational.
        UndefinedError: if it has no value.
        TooLargeError: if it is too large to compute.
    """
    if isinstance(expression, Number):
        return expression.value
    if isinstance(expression, Symbol):
        return values[expression.name]
    rule = _EXACT.get(expression.name)
    if rule is None:
        raise NotRationalError(expression.name)
    return _checked(rule(*(exact(arg, values) for arg in expression.args)))


def _bits(value: Fraction) -> int:
    return value.numerator.bit_length() + value.denominator.bit_length()


def _checked(value: Fraction) -> Fraction:
    if _bits(value) > MAX_BITS:
        raise TooLargeError
    return value


def _divide(over: Fraction, under: Fraction) -> Fraction:
    if not under:
        raise UndefinedError("a division by zero")
    return over / under


def _power(base: Fraction, exponent: Fraction) -> Fraction:
    if exponent.denominator != 1:
        return _root_of(base, exponent)
    if not base and exponent <= 0:
        raise UndefinedError("a power of zero")
    if base and abs(base) != 1 and _bits(base) * abs(exponent) > MAX_BITS * 2:
        raise TooLargeError
    return base ** (exponent.numerator if base and abs(base) != 1 else exponent.numerator % 2 if base else 1)


def _root_of(base: Fraction, exponent: Fraction) -> Fraction:
    """``4 ** (1/2)`` is rational, ``2 ** (1/2)`` is not."""
    if base < 0:
        raise NotRationalError("a root of a negative number")
    over, under = (_whole_root(part, exponent.denominator) for part in (base.numerator, base.denominator))
    return _power(Fraction(over, under), Fraction(exponent.numerator))


def _whole_root(number: int, index: int) -> int:
    if index == 2:
        root = math.isqrt(number)
    elif number.bit_length() > 1000 or index > 1000:
        raise NotRationalError("a root")
    else:
        root = round(number ** (1 / index))
    if root**index != number:
        raise NotRationalError("a root")
    return root


def _factorial(number: Fraction) -> Fraction:
    if number.denominator != 1:
        raise NotRationalError("a factorial")
    if number < 0:
        raise UndefinedError("a factorial of a negative number")
    if number * number.numerator.bit_length() > MAX_BITS * 2:
        raise TooLargeError
    return Fraction(math.factorial(number.numerator))


def _binomial(upper: Fraction, lower: Fraction) -> Fraction:
    if upper.denominator != 1 or lower.denominator != 1:
        raise NotRationalError("a binomial")
    if upper < 0 or lower < 0:
        raise UndefinedError("a binomial of a negative number")
    if min(lower, upper - lower) * upper.numerator.bit_length() > MAX_BITS * 2:
        raise TooLargeError
    return Fraction(math.comb(upper.numerator, lower.numerator))


_EXACT: dict[str, Any] = {
    "add": lambda *terms: _checked(sum(terms, Fraction(0))),
    "mul": lambda *factors: functools.reduce(lambda a, b: _checked(a * b), factors),
    "neg": lambda a: -a,
    "abs": abs,
    "floor": lambda a: Fraction(math.floor(a)),
    "ceil": lambda a: Fraction(math.ceil(a)),
    "div": _divide,
    "pow": _power,
    "root": lambda a, n: _power(a, _divide(Fraction(1), n)),
    "factorial": _factorial,
    "binomial": _binomial,
}


def folded(expression: Expression) -> Expression:
    """With every part that is rational as one number.

    Raises:
        UndefinedError: where a part has no value.
    """
    if isinstance(expression, Number):
        return Number(expression.value)
    if isinstance(expression, Symbol):
        return expression
    whole = Call(expression.name, tuple(map(folded, expression.args)))
    if not all(isinstance(arg, Number) for arg in whole.args) or not whole.args:
        return whole
    try:
        return Number(exact(whole, {}))
    except (NotRationalError, TooLargeError):
        return whole


def are_close(one: Expression, other: Expression, values: Values, *, is_real: bool) -> bool:
    """Whether two expressions agree to far more digits than their parts have.

    A first pass finds the widest magnitude of any part, the second one computes with several times as many bits: so
    ``sqrt(2) + 1/2004!`` is not ``sqrt(2) + 1/2006!``.

    Raises:
        UndefinedError: if a part has no value.
        TooLargeError: if it is too large to compute.
    """
    with mpmath.workprec(_SCOUT_BITS):
        scout = _Meter(values, is_real=is_real)
        scout.value(one)
        scout.value(other)
    if scout.width > (_MAX_WIDTH_OF_A_DRAW if values else _MAX_WIDTH):
        raise TooLargeError
    with mpmath.workprec(512 + 3 * scout.width):
        meter = _Meter(values, is_real=is_real)
        distance = abs(meter.value(one) - meter.value(other))
        return bool(distance < mpmath.ldexp(1, -448 - 2 * scout.width))


def are_near(one: Expression, other: Expression) -> bool:
    """Whether they differ by less than a hundredth.

    Raises:
        UndefinedError: if it has no value.
        TooLargeError: if it is too large to compute.
    """
    with mpmath.workprec(_SCOUT_BITS):
        meter = _Meter({}, is_real=False)
        first, second = meter.value(one), meter.value(other)
        return bool(abs(first - second) <= abs(first) / 100)


class _Meter:
    """Evaluates with mpmath at the precision in force, and keeps the widest magnitude that it met, in bits."""

    def __init__(self, values: Values, *, is_real: bool) -> None:
        self._values = values
        self._is_real = is_real
        self.width = 1

    def value(self, expression: Expression) -> Any:
        """An mpmath number.

        Raises:
            UndefinedError: if it has no value.
            TooLargeError: if it is too large to compute.
        """
        if isinstance(expression, Number | Symbol):
            number = exact(expression, self._values)
            self.width = max(self.width, _bits(number))
            return mpmath.mpf(number.numerator) / number.denominator
        found = self._call(expression)
        if not mpmath.isfinite(found):
            raise UndefinedError("no finite value")
        if found:
            self.width = max(self.width, abs(int(mpmath.mag(found))))
        return found

    def _call(self, expression: Call) -> Any:
        args = [self.value(arg) for arg in expression.args]
        rule = _NUMERIC.get(expression.name)
        if rule is None:
            raise UndefinedError(f"{expression.name} has no value")
        self._check(expression.name, args)
        try:
            return rule(*args)
        except (
            ZeroDivisionError,
            ValueError,
            OverflowError,
            TypeError,
        ) as err:  # TypeError: floor(i) and the like
            raise UndefinedError(str(err)) from err

    def _check(self, name: str, args: list[Any]) -> None:
        """Refuse what would fill the memory, and what leaves the real numbers."""
        if name in ("exp", "sinh", "cosh", "tanh") and abs(args[0]) > _MAX_POWER:
            raise TooLargeError
        if name == "root" and not args[1]:
            raise UndefinedError("a root without an index")
        if name in ("pow", "root") and args[0]:
            power = args[1] if name == "pow" else 1 / args[1]
            if abs(power) * (abs(mpmath.mag(args[0])) + 1) > _MAX_POWER:
                raise TooLargeError
        if name in ("factorial", "binomial") and abs(args[0]) > MAX_BITS:
            raise TooLargeError
        if self._is_real and _leaves_the_reals(name, args):
            raise UndefinedError("not a real number")


def _leaves_the_reals(name: str, args: list[Any]) -> bool:
    if name in ("log", "ln"):
        return any(arg <= 0 for arg in args)
    if name in ("arcsin", "arccos"):
        return bool(abs(args[0]) > 1)
    if name == "pow" and args[0] < 0:
        return args[1] != mpmath.floor(args[1]) and _odd_denominator(args[1]) is None
    return name == "root" and args[0] < 0 and _odd_denominator(1 / args[1]) is None


def _odd_denominator(number: Any) -> int | None:
    """n, if the number is m / n with a small odd n: a real root of a negative number exists."""
    for n in (1, 3, 5, 7, 9):
        scaled = number * n
        if abs(scaled - mpmath.nint(scaled)) < mpmath.mpf(2) ** (-mpmath.mp.prec // 2):
            return n
    return None


def _real_power(base: Any, exponent: Any) -> Any:
    if isinstance(base, mpmath.mpf) and isinstance(exponent, mpmath.mpf) and base < 0:
        n = _odd_denominator(exponent)
        if n is not None and n > 1:
            sign = -1 if mpmath.nint(exponent * n) % 2 else 1
            return sign * mpmath.power(-base, exponent)
    return mpmath.power(base, exponent)


def _whole(number: Any, rounded: Any) -> Any:
    nearest = mpmath.nint(number)
    is_noise = abs(number - nearest) < mpmath.mpf(2) ** (-mpmath.mp.prec // 2)
    return nearest if is_noise else rounded(number)


_NUMERIC: dict[str, Any] = {
    "add": lambda *terms: functools.reduce(operator.add, terms),
    "mul": lambda *factors: functools.reduce(operator.mul, factors),
    "neg": lambda a: -a,
    "div": lambda a, b: a / b,
    "pow": _real_power,
    "root": lambda a, n: _real_power(a, 1 / n),
    "abs": abs,
    "floor": lambda a: _whole(a, mpmath.floor),
    "ceil": lambda a: _whole(a, mpmath.ceil),
    "factorial": mpmath.factorial,
    "binomial": mpmath.binomial,
    "pi": lambda: +mpmath.pi,
    "e": lambda: +mpmath.e,
    "i": lambda: mpmath.mpc(0, 1),
    "exp": mpmath.exp,
    "log": lambda a, base=10: mpmath.log(a) / mpmath.log(base),
    "ln": mpmath.log,
    "sin": mpmath.sin,
    "cos": mpmath.cos,
    "tan": mpmath.tan,
    "cot": mpmath.cot,
    "sec": mpmath.sec,
    "csc": mpmath.csc,
    "arcsin": mpmath.asin,
    "arccos": mpmath.acos,
    "arctan": mpmath.atan,
    "sinh": mpmath.sinh,
    "cosh": mpmath.cosh,
    "tanh": mpmath.tanh,
}

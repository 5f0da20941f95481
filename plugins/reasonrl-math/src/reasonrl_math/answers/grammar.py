"""One expression: numbers, variables, the four operations, powers, roots, functions. Nothing is evaluated here."""

import contextlib
import re
from collections.abc import Callable, Iterator
from fractions import Fraction

from reasonrl_math.answers.brackets import MAX_DEPTH
from reasonrl_math.answers.nodes import Call, Expression, Number, Symbol, UnreadableError

FUNCTIONS = frozenset(str.split("sin cos tan cot sec csc arcsin arccos arctan sinh cosh tanh log ln exp sqrt abs"))
_INVERSE = {"sin": "arcsin", "cos": "arccos", "tan": "arctan"}
GREEK = frozenset(
    str.split(
        "alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta iota kappa lambda mu nu xi rho "
        "sigma tau upsilon phi varphi chi psi omega Gamma Delta Theta Lambda Xi Pi Sigma Upsilon Phi Psi "
        "Omega ell hbar"
    )
)
ACCENTS = frozenset(str.split("overline bar vec hat tilde widehat overrightarrow mathbb mathcal dot"))
PLAIN = {"pi": Call("pi"), "inf": Call("oo"), "infinity": Call("oo")}
_CONSTANTS = {"e": Call("e"), "i": Call("i")}
_MAX_EXPONENT = 5000

_NUMBER = re.compile(r"(\d+\.\d*|\.\d+|\d+)(?:[eE]([+-]?\d+)(?![A-Za-z]))?", re.ASCII)
_REPEATING = re.compile(r"\\(?:overline|bar|dot)\s*(?:\{(\d+)\}|(\d))", re.ASCII)
_PROPER = re.compile(
    r"\s+(\d+)\s*/\s*(\d+)(?![\d.])|\s*\\frac\s*(?:\{\s*(\d+)\s*\}|(\d))\s*(?:\{\s*(\d+)\s*\}|(\d))",
    re.ASCII,
)
_DIGIT_NEXT = re.compile(r"[{\s]*[\d.]", re.ASCII)
_LETTERS = re.compile(r"[A-Za-z]+")
_COMMAND = re.compile(r"\\([A-Za-z]+)")
_MARKS = re.compile(r"(?:\s*_\s*(?:\{([^{}]*)\}|([A-Za-z0-9])))?('*)")
_OF_ONE = re.compile(r"\s*\(\s*(?:[A-Za-z]|-?\d+)\s*\)", re.ASCII)
_OF_ANY = re.compile(r"\s*\([^()]*\)")
"""``P(A)`` and ``I(0)`` are a function's values, no products; ``n(n+1)`` is a product, ``f(n+1)`` is not."""

_DEGREES = re.compile(r"\^\s*(?:\\circ|\{\s*\\circ\s*\})")
_TIMES = re.compile(
    r"\*|\\cdot(?![A-Za-z])|\\times(?![A-Za-z])|(?<=\d)[xX](?=\s*10\s*\^)|(?<=\d )[xX](?= ?\d)", re.ASCII
)


def parse_expression(text: str) -> Expression:
    """``text`` as an expression.

    Raises:
        UnreadableError: if the text cannot be read.
    """
    parser = _Parser(text)
    found = parser.sum()
    if parser.rest():
        raise UnreadableError(f"cannot read {parser.rest()[:20]!r}")
    return found


class _Parser:
    """A descent over the characters; ``at`` is the next one."""

    def __init__(self, text: str) -> None:
        self._text = text.replace("**", "^")
        self._at = 0
        self._depth = 0
        self._bars = 0

    def rest(self) -> str:
        self._skip()
        return self._text[self._at :]

    @contextlib.contextmanager
    def _inside(self) -> Iterator[None]:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise UnreadableError("it is nested too deeply")
        yield
        self._depth -= 1

    def sum(self) -> Expression:
        with self._inside():
            terms = [self._signed(self._product)]
            while self._next() in ("+", "-"):
                sign = self._take()
                term = self._signed(self._product)
                terms.append(term if sign == "+" else Call("neg", (term,)))
        return terms[0] if len(terms) == 1 else Call("add", tuple(terms))

    def _signed(self, then: Callable[[], Expression]) -> Expression:
        flips = False
        while self._next() in ("+", "-"):
            flips ^= self._take() == "-"
        found = then()
        return Call("neg", (found,)) if flips else found

    def _product(self) -> Expression:
        factors, is_under = [self._power()], [False]
        while True:
            self._skip()
            is_divided = self._next() == "/"
            if is_divided or self._match(_TIMES):
                self._at += is_divided
                factors.append(self._signed(self._power))
            elif self._starts_a_factor():
                factors.append(self._power())
            else:
                return _quotient(factors, is_under)
            is_under.append(is_divided)

    def _starts_a_factor(self) -> bool:
        char = self._next()
        if _DIGIT_NEXT.match(self._text, self._at):
            raise UnreadableError("two numbers stand side by side")
        if char == "\\":
            command = _COMMAND.match(self._text, self._at)
            return command is not None and command[1] not in ("rfloor", "rceil", "pm", "mp")
        return _is_letter(char) or (char != "" and char in "([{") or (char == "|" and not self._bars)

    def _power(self) -> Expression:
        base = self._postfixed()
        if self._next() != "^":
            return base
        self._take()
        return Call("pow", (base, self._exponent()))

    def _postfixed(self) -> Expression:
        found = self._atom()
        while True:
            if self._next() == "!":
                self._take()
                if self._next() == "!":
                    raise UnreadableError("a double factorial")
                found = Call("factorial", (found,))
            elif self._next() == "%":
                self._take()
                found = Call("div", (found, Number(Fraction(100))))
            elif self._match(_DEGREES):
                found = Call("div", (Call("mul", (found, Call("pi"))), Number(Fraction(180))))
            else:
                return found

    def _exponent(self) -> Expression:
        if self._next() in ("+", "-"):
            return self._signed(self._exponent)
        with self._inside():
            power = self._letter() if _is_letter(self._next()) else self._atom()
            if self._next() == "^":
                self._take()
                return Call("pow", (power, self._exponent()))
        return power

    def _atom(self) -> Expression:
        char = self._next()
        if char.isdigit() or char == ".":
            return self._number()
        if char in "([{" and char:
            return self._group(char, {"(": ")", "[": "]", "{": "}"}[char])
        if char == "|":
            self._bars += 1
            found = Call("abs", (self._group("|", "|"),))
            self._bars -= 1
            return found
        if _is_letter(char):
            return self._word()
        if char == "\\":
            return self._command()
        raise UnreadableError(f"expected a number or variable, got {char!r}" if char else "it ends too early")

    def _group(self, opening: str, closing: str) -> Expression:
        self._expect(opening)
        bars, self._bars = self._bars, self._bars if opening == "|" else 0
        found = self.sum()
        self._bars = bars
        self._expect(closing)
        return found

    def _number(self) -> Expression:
        match = self._match(_NUMBER)
        if match is None:
            raise UnreadableError("a point without digits")
        exponent = int(match[2] or 0)
        if abs(exponent) > _MAX_EXPONENT or len(match[1]) > _MAX_EXPONENT // 2:
            raise UnreadableError("a number that is too long")
        if "." in match[1]:
            return self._decimal(match[1], exponent)
        whole = int(match[1])
        if not match[2] and (part := self._match(_PROPER)):
            over, under = int(part[1] or part[3] or part[4]), int(part[2] or part[5] or part[6])
            if not 0 < over < under:
                raise UnreadableError(f"{part[0].strip()} after {whole} is a factor or a part of a mixed number")
            return Number(whole + Fraction(over, under), "mixed number")
        return Number(whole * Fraction(10) ** exponent, "scientific" if match[2] else "integer")

    def _decimal(self, digits: str, exponent: int) -> Expression:
        value = Fraction(digits if digits[-1] != "." else digits + "0")
        if match := self._match(_REPEATING):
            places = len(digits.partition(".")[2])
            period = match[1] or match[2]
            value += Fraction(int(period), (10 ** len(period) - 1) * 10**places)
        return Number(value * Fraction(10) ** exponent, "scientific" if exponent else "decimal")

    def _word(self) -> Expression:
        match = _LETTERS.match(self._text, self._at)
        run = match[0] if match else ""
        if run in FUNCTIONS or run in PLAIN:
            self._at += len(run)
            return PLAIN[run] if run in PLAIN else self._function(run)
        if len(run) > 3:
            raise UnreadableError(f"{run!r} is a word")
        return self._letter()

    def _letter(self) -> Expression:
        letter = self._take()
        return self._named(letter)

    def _named(self, name: str) -> Expression:
        """A variable with its index and primes, and what it is a function of."""
        marks = self._match(_MARKS)
        below, primes = ((marks[1] or marks[2] or "").replace(" ", ""), marks[3]) if marks else ("", "")
        if not below and not primes and name in _CONSTANTS:
            return _CONSTANTS[name]
        argument = self._match(_OF_ANY if name in ("f", "g", "h") else _OF_ONE)
        of = re.sub(r"\s", "", argument[0]) if argument else ""
        return Symbol(name + (f"_{below}" if below else "") + primes + of)

    def _command(self) -> Expression:
        match = self._match(_COMMAND)
        name = match[1] if match else ""
        if name in FUNCTIONS and name != "sqrt":
            return self._function(name)
        if name in GREEK:
            return self._named(f"\\{name}")
        if name in ("pi", "infty"):
            return Call("oo" if name == "infty" else "pi")
        reader = getattr(self, f"_read_{name}", None)
        if reader is None and name in ACCENTS:
            return self._named(f"\\{name}{{{self._braced_text()}}}")
        if reader is None:
            raise UnreadableError(f"cannot read \\{name}" if name else "a stray backslash")
        found: Expression = reader()
        return found

    def _read_frac(self) -> Expression:
        return Call("div", (self._argument(), self._argument()))

    def _read_binom(self) -> Expression:
        return Call("binomial", (self._argument(), self._argument()))

    def _read_sqrt(self) -> Expression:
        index: Expression = Number(Fraction(2))
        if self._next() == "[":
            index = self._group("[", "]")
        body = self._group("(", ")") if self._next() == "(" else self._argument()
        return Call("root", (body, index))

    def _read_lfloor(self) -> Expression:
        return Call("floor", (self._group("", "\\rfloor"),))

    def _read_lceil(self) -> Expression:
        return Call("ceil", (self._group("", "\\rceil"),))

    def _read_text(self) -> Expression:
        name = self._braced_text()
        if name in FUNCTIONS:
            return self._function(name)
        if len(name) == 1 and name.isalpha():
            return self._named(name)
        raise UnreadableError(f"{name!r} is text")

    def _function(self, name: str) -> Expression:
        if name == "sqrt":
            return self._read_sqrt()
        base, power = None, None
        for _ in range(2):
            if self._next() == "_" and name == "log":
                self._take()
                base = self._argument()
            elif self._next() == "^" and power is None:
                self._take()
                power = self._exponent()
        if power == Call("neg", (Number(Fraction(1)),)) and name in _INVERSE:
            name, power = _INVERSE[name], None
        argument = self._function_argument()
        found: Expression = Call(name, (argument,) if base is None else (argument, base))
        return found if power is None else Call("pow", (found, power))

    def _function_argument(self) -> Expression:
        if self._next() and self._next() in "({[|":
            return self._atom()
        with self._inside():
            factors = [self._signed(self._power)]
            while self._starts_a_factor() and not self._starts_a_function():
                factors.append(self._power())
        return _quotient(factors, [False] * len(factors))

    def _starts_a_function(self) -> bool:
        match = re.compile(r"\\?([A-Za-z]+)").match(self._text, self._at)
        return match is not None and match[1] in FUNCTIONS - {"sqrt"}

    def _argument(self) -> Expression:
        """What a command applies to: a group in braces, or one digit, letter or command."""
        char = self._next()
        if char == "{":
            return self._group("{", "}")
        if char.isdigit():
            return Number(Fraction(int(self._take())))
        if _is_letter(char):
            return _CONSTANTS.get(char, Symbol(self._take()))
        if char == "\\":
            with self._inside():
                return self._command()
        raise UnreadableError("a command without what it applies to")

    def _braced_text(self) -> str:
        match = self._match(re.compile(r"\{([^{}]*)\}|([A-Za-z0-9])"))
        if match is None:
            raise UnreadableError("a command without its text")
        return (match[1] or match[2] or "").strip()

    def _skip(self) -> None:
        while self._at < len(self._text) and self._text[self._at].isspace():
            self._at += 1

    def _next(self) -> str:
        self._skip()
        return self._text[self._at : self._at + 1]

    def _take(self) -> str:
        char = self._next()
        self._at += 1
        return char

    def _match(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        match = pattern.match(self._text, self._at)
        if match:
            self._at = match.end()
        return match

    def _expect(self, text: str) -> None:
        self._skip()
        if not self._text.startswith(text, self._at):
            raise UnreadableError(f"{text!r} is missing")
        self._at += len(text)


def _is_letter(char: str) -> bool:
    return char.isascii() and char.isalpha()


def _quotient(factors: list[Expression], is_under: list[bool]) -> Expression:
    """The product of factors; those that are under a slash divide."""
    if len(factors) == 1:
        return factors[0]
    if is_under == [False, True]:
        return Call("div", (factors[0], factors[1]))
    one = Number(Fraction(1))
    return Call(
        "mul",
        tuple(Call("div", (one, f)) if under else f for f, under in zip(factors, is_under, strict=True)),
    )

"""Answers: a table of pairs, random rationals in many notations, hostile texts, and what is said of each."""

import random
import signal
import threading
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import pytest

from reasonrl.contracts.clock import TooSlowError, limited_to
from reasonrl_math.answers import UnreadableError, agree, describe, last_box, read, read_known
from reasonrl_math.rewards import is_equal

TABLE = Path(__file__).parent / "answer_pairs.tsv"
PAGE = Path(__file__).resolve().parents[3] / "docs" / "plugins" / "math.md"


def pairs() -> list[tuple[bool, str, str]]:
    """(right, known answer, answer) of each line of the table."""
    lines = [line for line in TABLE.read_text(encoding="utf-8").split("\n") if line and line[0] != "#"]
    return [(right == "=", known, answer) for right, known, answer in (line.split("\t") for line in lines)]


def verdict(known: str, answer: str) -> bool:
    """As the reward finds it, without its shortcut for equal texts."""
    expected = read_known(known)
    try:
        return agree(expected, read(answer))
    except UnreadableError:
        return False


def test_every_pair_of_the_table_is_judged_as_it_says() -> None:
    rows = pairs()
    assert f"the {len(rows):,} pairs in" in PAGE.read_text(encoding="utf-8")
    assert min(sum(right for right, *_ in rows), sum(not right for right, *_ in rows)) > 400
    wrong = [row for row in rows if verdict(row[1], row[2]) is not row[0]]
    assert not wrong


def test_every_known_answer_of_the_table_agrees_with_itself() -> None:
    for known in {known for _, known, _ in pairs()}:
        assert verdict(known, known), known


def decimal(value: Fraction) -> str | None:
    """Its digits, if they end."""
    for places in range(12):
        scaled = value * 10**places
        if scaled.denominator == 1:
            digits = f"{abs(scaled.numerator):0{places + 1}d}"
            text = f"{digits[: len(digits) - places]}.{digits[len(digits) - places :]}" if places else digits
            return f"-{text}" if value < 0 else text
    return None


def mixed(value: Fraction, form: str) -> str | None:
    whole, rest = divmod(abs(value), 1)
    if not whole or not rest:
        return None
    return ("-" if value < 0 else "") + form.format(w=whole, p=rest.numerator, q=rest.denominator)


def repeating(value: Fraction) -> str | None:
    whole, rest = divmod(abs(value), 1)
    for length in range(1, 7):
        period = rest * (10**length - 1)
        if rest and period.denominator == 1:
            return f"{'-' if value < 0 else ''}{whole}.\\overline{{{period.numerator:0{length}d}}}"
    return None


def grouped(value: Fraction, separator: str) -> str | None:
    return f"{value.numerator:,}".replace(",", separator) if value.denominator == 1 else None


NOTATIONS: tuple[Callable[[Fraction], str | None], ...] = (
    lambda v: f"{v.numerator}/{v.denominator}",
    lambda v: f"\\frac{{{v.numerator}}}{{{v.denominator}}}",
    lambda v: f"\\dfrac{{{-v.numerator}}}{{{-v.denominator}}}",
    lambda v: f"-\\tfrac{{{-v.numerator}}}{{{v.denominator}}}",
    lambda v: f"\\frac{{{6 * v.numerator}}}{{{6 * v.denominator}}}",
    lambda v: f"$\\left({v.numerator} \\div {v.denominator}\\right)$.",
    lambda v: f"x = {v.numerator}/{v.denominator}",
    lambda v: f"{v.numerator} \\cdot {v.denominator}^{{-1}}",
    lambda v: f"\\frac{{{v.numerator + v.denominator}}}{{{v.denominator}}} - 1",
    lambda v: f"\\boxed{{{v.numerator} / {v.denominator}}}",
    lambda v: f"\\frac{{{v.numerator ** 3}}}{{{v.denominator} \\times ({v.numerator})^2}}" if v else None,
    decimal,
    lambda v: decimal(v) and f"{decimal(v)}0" if v.denominator > 1 else f"{v}.",
    lambda v: decimal(v * 1000) and f"{decimal(v * 1000)}e-3",
    lambda v: decimal(v / 10**4) and f"{decimal(v / 10**4)} \\times 10^4",
    lambda v: decimal(v * 100) and f"{decimal(v * 100)}\\%",
    lambda v: mixed(v, "{w} {p}/{q}"),
    lambda v: mixed(v, "{w}\\frac{{{p}}}{{{q}}}"),
    repeating,
    lambda v: grouped(v, ","),
    lambda v: grouped(v, "{,}"),
    lambda v: grouped(v, "\\,"),
    lambda v: grouped(v, " "),
)  # fmt: skip


def drawn(rng: random.Random) -> Fraction:
    """Whole, terminating, any; small and large, of either sign."""
    size = rng.choice((12, 1000, 10**7))
    return Fraction(rng.randint(-size, size), rng.choice((1, 1, 2, 8, 5, 25, 3, 7, 99, rng.randint(1, size))))


def written(value: Fraction, rng: random.Random) -> str:
    texts = [text for text in (notation(value) for notation in NOTATIONS) if text]
    return rng.choice(texts)


@pytest.mark.parametrize("seed", range(2))
def test_equal_rationals_agree_in_every_notation_and_unequal_ones_in_none(seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(1000):
        value = drawn(rng)
        known, answer = written(value, rng), written(value, rng)
        assert verdict(known, answer), (known, answer)
        near = value + rng.choice((1, -1)) * Fraction(1, 10 ** rng.randint(0, 12))
        other = rng.choice((near, -value, value + 1, value * 10, 1 / value if value else near, drawn(rng)))
        if other not in (value, value * 100, value / 100):  # 60 and 60% are one answer
            known, answer = written(value, rng), written(other, rng)
            assert not verdict(known, answer), (known, answer)


def test_every_notation_is_drawn() -> None:
    rng = random.Random(0)
    values = [drawn(rng) for _ in range(300)]
    assert all(any(notation(value) for value in values) for notation in NOTATIONS)


def formula(rng: random.Random, depth: int) -> tuple[str, Fraction]:
    """A random formula, in parentheses only where it needs them or at random, and its value."""
    if depth == 0:
        number = rng.randint(0, 12)
        return rng.choice((str(number), f"{number}.0", f"{{{number}}}")), Fraction(number)
    (left, a), (right, b) = formula(rng, depth - 1), formula(rng, depth - 1)
    kind = rng.choice(("+", "-", "\\cdot", "*", "\\frac", "/", "^", "neg", "()"))
    if kind in ("\\frac", "/") and b:
        return (f"\\frac{{{left}}}{{{right}}}" if kind == "\\frac" else f"({left})/({right})"), a / b
    if kind == "^":
        power = rng.randint(0, 3) if a else 2
        return f"\\left({left}\\right)^{rng.choice((str(power), f'{{{power}}}'))}", a**power
    if kind in ("\\cdot", "*"):
        return f"({left}) {kind} ({right})", a * b
    if kind == "()":
        return f"({left})({right})", a * b
    if kind == "neg":
        return f"-({left})", -a
    return (f"{left} + {right}", a + b) if kind == "+" else (f"{left} - ({right})", a - b)


def test_random_formulas_have_their_value() -> None:
    rng = random.Random(2)
    for _ in range(600):
        text, value = formula(rng, rng.randint(1, 3))
        assert verdict(f"{value}", text), (text, value)
        assert not verdict(f"{value + Fraction(1, 10**9)}", text), (text, value)


def test_random_polynomials_are_equal_by_their_coefficients() -> None:
    rng = random.Random(3)
    for _ in range(200):
        a, b, c = (rng.randint(-9, 9) for _ in range(3))
        product = f"(x + {a}y)({c}x {b:+d})"
        terms = [f"{c}x^2", f"{b:+d}x", f"{a * c:+d} x y", f"{a * b:+d}y"]
        assert verdict(product, "".join(terms)), (product, terms)
        at = rng.randrange(4)
        terms[at] += rng.choice(("+ 1", "- x^2", "+ \\frac{y}{10^{30}}", "+ 0.0001x"))
        assert not verdict(product, " ".join(terms)), (product, terms)


TOKENS = str.split(
    "1 2 10 0 9 345 0.5 . x y n e i + - * / ^ ! ( ) [ ] { } | , ; = < > % _ ' & $ \\ \\\\ \\{ \\} \\pi \\le \\in "
    "\\approx \\pm \\frac \\sqrt \\sqrt[3] \\binom \\cdot \\infty \\cup \\text{cm} \\text{or} \\sin \\ln \\log_2 "
    "\\lfloor \\rfloor \\begin{pmatrix} \\end{pmatrix} million \\overline{3} \\left \\right 99999999 ½ ² − ∞ {2} (x+1) "
    "^{2} ^{-1} \ud800 ５ or"
)


def test_no_text_raises_anything_else_or_takes_long() -> None:
    rng = random.Random(1)
    read_so_far = [read("x^2+1")]
    start = time.monotonic()
    for _ in range(4000):
        text = rng.choice(("", " ")).join(rng.choices(TOKENS, k=rng.randint(1, 14)))
        try:
            answer = read(text)
            describe(answer)
        except UnreadableError:
            continue
        assert agree(answer, answer), text
        agree(read_so_far[-1], answer)
        read_so_far.append(answer)
    assert len(read_so_far) > 200
    assert time.monotonic() - start < 60


HOSTILE = (
    *("(", ")", "()", "[", "|", "a b", "1,", "1,234,", "=1", "x=", "\\frac", "\\frac1", "\\sqrt", "\\sin", "2^", "!"),
    *("1+", "-", "\\pm1,", "\\cup", "\\{", "\\text{a}", "½", "1 234 ", "or ", "9^", "99!", "e^", "\\ln ", "x^{99}"),
    *("x<", "5 million ", "8!/7!", "*9999!", "+1/9999!", "\\sin(7!)+", "\\exp(9", "^{9^{9", "\\binom{99}{50}"),
)  # fmt: skip


@pytest.mark.parametrize("piece", HOSTILE)
def test_a_long_hostile_answer_is_wrong_within_the_limit(piece: str) -> None:
    start = time.monotonic()
    for tail in ("", "5"):
        assert is_equal("x^2+5", (piece * 500)[: 500 - len(tail)] + tail) is False
    assert time.monotonic() - start < 30


def test_a_computation_is_interrupted_and_the_clock_left_as_it_was() -> None:
    def wait_forever() -> None:
        with limited_to(0.05):
            while True:
                pass

    before = signal.getsignal(signal.SIGVTALRM)
    with pytest.raises(TooSlowError, match=r"longer than 0\.05 s"):
        wait_forever()
    assert signal.getitimer(signal.ITIMER_VIRTUAL)[0] == 0
    assert signal.getsignal(signal.SIGVTALRM) is before


def test_outside_of_the_main_thread_there_is_no_limit() -> None:
    done: list[bool] = []

    def work() -> None:
        with limited_to(0.01):
            time.sleep(0.05)
        done.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done == [True]


@pytest.mark.parametrize(
    ("known", "said"),
    [
        ("18", "a whole number"),
        ("1,234", "a whole number"),
        ("-7", "a whole number"),
        ("1/2", "a fraction"),
        ("-\\frac{1}{2}", "a fraction"),
        ("12 1/2", "a mixed number"),
        ("0.5", "a decimal"),
        ("1.2e5", "a number with an exponent"),
        ("50\\%", "a percentage"),
        ("5 \\text{ cm}", "a whole number of cm"),
        ("101_2", "a whole number in base 2"),
        ("2\\sqrt{3}", "an exact expression"),
        ("x^2+y", "an expression in x, y"),
        ("x = 5", "a whole number, for x"),
        ("x > 5", "a pair in order, or an open interval, for x"),
        ("x^2+y^2=1", "an equation"),
        ("x+y > 1", "an inequality"),
        ("3, 5, 7", "a list of 3 in any order"),
        ("\\{1,2\\}", "a set of 2"),
        ("\\emptyset", "the empty set"),
        ("(1, 2)", "a pair in order, or an open interval"),
        ("[1, 2)", "an interval"),
        ("[1, 2]", "a closed interval"),
        ("(1, 2, 3)", "3 values in order"),
        ("[0,1] \\cup [2,3]", "a union of sets"),
        ("\\begin{pmatrix}1\\\\2\\end{pmatrix}", "a 2 x 1 matrix"),
        ("(A)", "a letter"),
        ("no solution", "text"),
        ("10:30", "text"),
    ],
)
def test_how_an_answer_was_read_is_said(known: str, said: str) -> None:
    assert describe(read_known(known)) == said


@pytest.mark.parametrize(
    ("known", "why"),
    [
        ("", "it is empty"),
        ("\\text{ }", "it is empty"),
        ("\\qqq{", "not closed"),
        ("\\sum_{n=1}^5 n", "cannot read \\sum"),
        ("2=5", "its sides differ"),
        ("x = 5 = 6", "its sides differ"),
        ("\\frac{1}{0}", "a division by zero"),
        ("(1, 1/0)", "a division by zero"),
        ("(-3)!", "a factorial of a negative number"),
        ("2\\frac{6}{2}", "mixed number"),
        ("2 3", "two numbers stand side by side"),
        ("1" * 3000, "the limit is 2000"),
        (
            "Notice that $x = 2$, hence by the theorem above the sum of all of these is 5.",
            "more than 10 words",
        ),
        ("(" * 60 + "5" + ")" * 60, "nested too deeply"),
    ],
)
def test_what_cannot_be_read_says_why(known: str, why: str) -> None:
    with pytest.raises(UnreadableError) as caught:
        read_known(known)
    assert why in str(caught.value)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("\\boxed{5}", "5"),
        ("\\boxed{1}, then \\boxed{2}", "2"),
        ("\\boxed{5} or rather \\boxed{}", ""),
        ("\\boxed{2 + \\boxed{3}}", "2 + \\boxed{3}"),
        ("\\boxed{\\boxed{5}}", "\\boxed{5}"),
        ("\\boxed{\\frac{1}{2}} and \\boxed{6", "\\frac{1}{2}"),
        ("\\boxed{\\left\\{ 1, 2 \\right\\}}", "\\left\\{ 1, 2 \\right\\}"),
        ("\\boxed{\\left\\{ x \\right.}", "\\left\\{ x \\right."),
        ("\\fbox{7}", "7"),
        ("so it is $\\boxed 5$.", "5"),
        ("put it into \\boxed, please", None),
        ("\\boxedx{5}", None),
        ("5", None),
    ],
)
def test_the_last_closed_box_counts(text: str, found: str | None) -> None:
    assert last_box(text) == found


def test_unclosed_boxes_take_one_pass() -> None:
    start = time.monotonic()
    assert last_box("\\boxed{" * 50_000) is None
    assert time.monotonic() - start < 5

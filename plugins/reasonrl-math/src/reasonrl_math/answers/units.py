"""Units: what stands around a number without being part of it."""

import re

from reasonrl_math.answers.grammar import FUNCTIONS

PERCENT = "%"
_SAME = {
    "dollar": "$", "usd": "$", "buck": "$", "cent": "cents", "euro": "€", "eur": "€",
    "percent": PERCENT, "percentage": PERCENT, "pct": PERCENT, "deg": "degree", "degree celsius": "degree C",
    "meter": "m", "metre": "m", "centimeter": "cm", "centimetre": "cm", "millimeter": "mm", "millimetre": "mm",
    "kilometer": "km", "kilometre": "km", "gram": "g", "kilogram": "kg", "kilo": "kg", "milligram": "mg",
    "liter": "l", "litre": "l", "milliliter": "ml", "millilitre": "ml",
    "second": "s", "sec": "s", "minute": "min", "mins": "min", "hour": "h", "hr": "h",
    "inches": "in", "inch": "in", "feet": "ft", "foot": "ft", "yard": "yd", "mile": "mi", "pound": "lb",
    "ounce": "oz", "mi/h": "mph", "km/h": "kph", "kmh": "kph", "volt": "v", "watt": "w", "newton": "n",
    "joule": "j", "men": "man", "people": "person", "children": "child",
}  # fmt: skip
_SCALES = {
    "dozen": 12,
    "hundred": 100,
    "thousand": 10**3,
    "million": 10**6,
    "billion": 10**9,
    "trillion": 10**12,
}
_LETTERS = frozenset(str.split("m g s h l L N J W V A K C F T"))
"""Units of one letter, upright: ``\\text{m}``. In italics a letter is a variable."""

_SHORT = frozenset(
    str.split(
        "cm mm km in ft yd mi kg mg lb oz ml cl dl ms min hr hrs lbs kgs mph kph kmh km/h mi/h m/s cm/s "
        "ft/s sec day men man cup pen hat cat dog egg pie car box bag row cow pig hen toy cap jar ton lot "
        "bus mol psi rpm mins pct"
    )
)
"""Plain words of up to three letters that are no product of variables."""

_LINKS = frozenset(str.split("of the per sq cu"))
_NEVER = frozenset(
    str.split(
        "and or not no is are if else than then to equals equal times plus minus over with remainder below under zero "
        "negative point squared cubed factorial half halves third thirds fourths fifths sixths sevenths eighths "
        "ninths tenths hundredths thousandths millionths one two three four five six seven eight nine ten eleven "
        "twelve twenty thirty forty fifty sixty seventy eighty ninety mil mln mn bn tn"
    )
)
"""Words that say more about a number than what it counts."""

_FUNCTION = re.compile(r"(arc)?(sin|cos|tan|cot|sec|csc|log|ln|exp|sqrt|pi)h?[a-z]?$")
_FUNCTION_CALL = re.compile("|".join(FUNCTIONS))
_POWER = r"(?:\s*\^\s*(?:\{\s*(-?\d)\s*\}|(-?\d)))?"
_CURRENCY = re.compile(r"^([+-]?)\s*([$€£¥])\s*(?=[\d.+-])")
_TEXT_UNIT = re.compile(r"\s*(/|\\cdot|)\s*\\text\s*\{([^{}\\]*)\}" + _POWER + "$")
_PLAIN_UNIT = re.compile(r"(?<=[\d})!]) ((?:[A-Za-z/]+ ){0,3}[A-Za-z/]+)" + _POWER + "$")
_GLUED_UNIT = re.compile(r"(?<=\d)(cm|mm|km|kg|mg|ml|lb|oz|ft|mph|kph|km/h|m/s|hr|min|sec)" + _POWER + "$")
_MARK = re.compile(r"\s*(%|\^\s*(?:\\circ|\{\s*\\circ\s*\})\s*(?:\\text\s*\{\s*)?([CF]?)\s*\}?)$")
_BASE = re.compile(r"^(\d+)\s*_\s*(?:\{\s*(\d+)\s*\}|(\d))$")


def split_unit(text: str) -> tuple[str, int, str]:
    """The text without its unit, a factor (``5 million``) and the unit, '' if there is none."""
    if base := _BASE.match(text):
        return base[1], 1, f"base {base[2] or base[3]}"
    if money := _CURRENCY.match(text):
        rest, factor, unit = _trailing(text[money.end() :])
        return money[1] + rest, factor, money[2] if unit in ("", money[2]) else f"{money[2]} {unit}"
    return _trailing(text)


def _trailing(text: str) -> tuple[str, int, str]:
    mark = _MARK.search(text)
    if mark and not _FUNCTION_CALL.search(text[: mark.start()]):  # the degrees of an angle inside are not of the whole
        return text[: mark.start()], 1, PERCENT if mark[1] == PERCENT else f"degree {mark[2]}".strip()
    rest, pieces = text, ""
    while found := _TEXT_UNIT.search(rest):
        words = found[2].replace(".", "").strip()
        if not words or not _are_a_unit(words.split(), upright=True):
            return text, 1, ""
        pieces = f"{found[1].strip()[:1]}{words}{_power(found[3] or found[4])} {pieces}"
        rest = rest[: found.start()].rstrip()
    for pattern in (_PLAIN_UNIT, _GLUED_UNIT):
        found = pattern.search(rest)
        if found and not pieces and _are_a_unit(found[1].split(), upright=False):
            pieces, rest = found[1] + _power(found[2] or found[3]), rest[: found.start()].rstrip()
    return (rest, *_scaled(pieces.strip())) if rest else (text, 1, "")


def _power(digits: str | None) -> str:
    return f"^{digits}" if digits else ""


def _are_a_unit(words: list[str], *, upright: bool) -> bool:
    if len(words) > 4:
        return False
    return all(_is_a_unit_word(word, upright=upright) for word in words)


def _is_a_unit_word(word: str, *, upright: bool) -> bool:
    lower = word.lower()
    if lower in _NEVER or _FUNCTION.match(lower) or not re.fullmatch(r"[a-z/%$€£^0-9'-]+", lower):
        return False
    if lower in _SHORT or lower in _LINKS:
        return True
    if upright:
        return len(word) > 1 or word in _LETTERS or word in "%$€£/"
    return len(word) > 3


def _scaled(unit: str) -> tuple[int, str]:
    """``million dollars`` as (1000000, "$")."""
    factor, words = 1, unit.split()
    while words and words[0].lower().removesuffix("s") in _SCALES:
        factor *= _SCALES[words.pop(0).lower().removesuffix("s")]
    return factor, _canonical(" ".join(words).lower())


def _canonical(words: str) -> str:
    """One name for ``square inches``, ``sq in`` and ``in^2``."""
    words = re.sub(r"^(?:of|the) ", "", words)
    power = ""
    for prefix, exponent in (("square ", "^2"), ("sq ", "^2"), ("cubic ", "^3"), ("cu ", "^3")):
        if words.startswith(prefix):
            words, power = words.removeprefix(prefix), exponent
    parts = [_one(part) for part in re.split(r"\s*(?:/|\bper\b)\s*", words)]
    return _SAME.get("/".join(parts), "/".join(parts)) + power


def _one(word: str) -> str:
    name, caret, power = word.strip().partition("^")
    name = _SAME.get(name, name)
    single = name.removesuffix("s") if len(name) > 3 or name in ("hrs", "lbs", "kgs") else name
    return _SAME.get(single, single) + caret + power

"""Words and names: what is compared as text, and what may stand left of an equals sign."""

import re

from reasonrl_math.answers.grammar import ACCENTS, FUNCTIONS, GREEK, PLAIN
from reasonrl_math.answers.nodes import Words

MAX_WORDS = 10
_TEXT = re.compile(r"\\text\s*\{([^{}]*)\}")
_WORDS = re.compile(r"[A-Za-z]+(?:[ .'-]+[A-Za-z]+)*\.?")
_FORMULA = re.compile(r"[\\{}^_=<>+*$]")
_TIME = re.compile(r"\d+(?:\s*:\s*\d+)+")

_CHOICE = re.compile(r"(?:\\text\s*\{\s*\(?([A-H])\)\s*\}|\(([A-H])\)(?=\s*(?:[\d$.]|\\frac|\\sqrt)))\s*(\S.*)")

_ACCENTED = r"\\[a-zA-Z]+(?:\s*\{[A-Za-z]+\})?"
_BASE = rf"(?:[A-Za-z]|{_ACCENTED}|\\text\s*\{{[^{{}}]*\}}|\|?[A-Z]{{2,4}}\|?|[A-Za-z]{{4,}}(?: [A-Za-z]+)*)"
_INDEX = r"(?:\s*_\s*(?:\{[^{}]*\}|\w))?(?:\^\s*\{\s*(?:-1|\([^{}]*\)|\\prime)\s*\})?'*"
_NAME = re.compile(rf"(?:m ?)?(?:\\(?:angle|triangle) ?)?{_BASE}{_INDEX}(?: ?\([\w,| ]*\))?")
_NAME_COMMANDS = GREEK | ACCENTS | {"text", "angle", "triangle", "prime"}


def without_text(text: str) -> str:
    """``\\text{...}`` replaced by what it holds."""
    return _TEXT.sub(r"\1", text).strip()


def is_only_text(text: str) -> bool:
    """Whether one ``\\text{...}`` is all there is."""
    return bool(_TEXT.fullmatch(text))


def is_a_solution(plain: str) -> bool:
    """Whether it has too many words for an answer."""
    return len(re.findall(r"[A-Za-z]{2,}", re.sub(r"\\[A-Za-z]+", " ", plain))) > MAX_WORDS


def words_of(text: str) -> Words | None:
    """``text`` if it is words and no product of variables."""
    outside = _TEXT.sub("", text)
    plain = without_text(text).strip(" ().")
    if (outside != text and outside.strip(" ().")) or not _WORDS.fullmatch(plain):
        return None
    runs = re.findall(r"[A-Za-z]+", plain)
    if max(map(len, runs)) < (4 if "-" in plain else 2):
        return None
    return None if FUNCTIONS.union(PLAIN).intersection(runs) else as_words(plain)


def as_words(plain: str) -> Words:
    """``plain`` without its case, its punctuation and its parentheses."""
    spaced = re.sub(r"[,;!?\"()]", " ", plain.casefold())
    return Words(" ".join(re.sub(r"(?<!\d)\.|\.(?!\d)", "", spaced).split()).replace(" : ", ":"))


def is_prose(plain: str) -> bool:
    """Whether it is an answer as it stands, such as a date, a time or a name; no formula."""
    if _FORMULA.search(plain):
        return False
    return bool(re.search(r"[^\W\d]", plain) or _TIME.fullmatch(plain))


def choice_of(text: str) -> tuple[str, str] | None:
    """(letter, what it stands for) of a choice that is given with its value: ``\\textbf{(B)} 5``."""
    match = _CHOICE.fullmatch(text)
    return (match[1] or match[2], match[3]) if match else None


def is_name(text: str) -> bool:
    """Whether a value can be given to it: ``x``, ``a_{n+1}``, ``f(x)``, ``Area``, ``(x, y)``."""
    if not _NAME_COMMANDS.issuperset(re.findall(r"\\([A-Za-z]+)", text)):
        return False
    inner = text[1:-1] if text[:1] == "(" and text[-1:] == ")" else ""
    if "," in inner:
        return all(is_name(part.strip()) for part in inner.split(","))
    return bool(_NAME.fullmatch(text))


def name_of(text: str) -> str:
    """One spelling of a name."""
    return re.sub(r"\\text|[\s{}]", "", text)

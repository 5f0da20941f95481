"""Spellings brought to one form before anything is read: LaTeX spacing, Unicode, separators, punctuation."""

import re
import unicodedata

_COMMANDS = {
    "dfrac": "\\frac", "tfrac": "\\frac", "cfrac": "\\frac", "dbinom": "\\binom", "tbinom": "\\binom",
    "leq": "\\le ", "leqslant": "\\le ", "geq": "\\ge ", "geqslant": "\\ge ", "neq": "\\ne ",
    "lt": "<", "gt": ">", "lvert": "|", "rvert": "|", "vert": "|", "mid": "|", "colon": ":",
    "lbrace": "\\{", "rbrace": "\\}", "lbrack": "[", "rbrack": "]", "ast": "*", "div": "/", "slash": "/",
    "ldots": "\\dots ", "cdots": "\\dots ", "simeq": "\\approx ", "lor": " or ", "vee": " or ",
    "land": " and ", "wedge": " and ", "varnothing": "\\emptyset ", "oslash": "\\emptyset ",
    "degree": "^\\circ ", "imath": "i ", "quad": " ", "qquad": " ", "enspace": " ", "thinspace": " ",
    "displaystyle": "", "textstyle": "", "limits": "", "left": "", "right": "", "big": "", "Big": "",
    "bigl": "", "bigr": "", "Bigl": "", "Bigr": "", "bigg": "", "Bigg": "", "biggl": "", "biggr": "",
    "boxed": "", "fbox": "", "rm": "", "bf": "", "it": "", "cup": "\\cup ", "bigcup": "\\cup ",
    "arctg": "\\arctan", "tg": "\\tan", "ctg": "\\cot", "lg": "\\log",
}  # fmt: skip
_CHARACTERS = {
    "−": "-", "–": "-", "—": "-", "‐": "-", "‑": "-", "×": "\\times ", "·": "\\cdot ", "⋅": "\\cdot ",
    "∙": "\\cdot ", "÷": "/", "⁄": "/", "∕": "/", "√": "\\sqrt ", "∞": "\\infty ", "≤": "\\le ", "≥": "\\ge ",
    "⩽": "\\le ", "⩾": "\\ge ", "≠": "\\ne ", "≈": "\\approx ", "∪": "\\cup ", "∈": "\\in ", "∅": "\\emptyset ",
    "±": "\\pm ", "∓": "\\mp ", "°": "^\\circ ", "′": "'", "’": "'", "‘": "'", "“": '"', "”": '"', "…": "\\dots ",
    "¢": "\\text{cents}", "ℝ": "\\mathbb{R}", "ℤ": "\\mathbb{Z}", "ℕ": "\\mathbb{N}", "⟨": "\\langle ",
    "⟩": "\\rangle ", "⌊": "\\lfloor ", "⌋": "\\rfloor ", "⌈": "\\lceil ", "⌉": "\\rceil ", "∨": " or ", "∧": " and ",
}  # fmt: skip
_TEXT = re.compile(
    r"\\(?:text|textbf|textit|textrm|textnormal|texttt|textsf|mbox|hbox|mathrm|mathbf|mathit|mathsf|boldsymbol"
    r"|operatorname\*?)\s*(?=\{)"
)
_SPACES = re.compile(r"(?<!\\)\\[,;:> \n]|~|\\hspace\s*\{[^{}]*\}|\s+")
_GROUPED = re.compile(
    r"(?<![\d.,])\d{1,3}(?:(?:\{,\}|\\[,;: ]|~| |\u00a0|\u2009|\u202f|,?\\!\s*)\d{3})+(?![\d]|\s*/|\s*\\frac)"
)
_SUPER = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ", "0123456789+-n")
_SUB = str.maketrans("₀₁₂₃₄₅₆₇₈₉", "0123456789")
_END = re.compile(r"(?:\s|[.,;:]|\\\\)+$")


def clean(text: str) -> str:
    """``text`` in the one spelling that the readers know."""
    if not (text.isascii() and text.isprintable()):
        text = "".join(map(_plain, text))
    text = re.sub("[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ]+", lambda m: "^{" + m[0].translate(_SUPER) + "}", text)
    text = re.sub("[₀-₉]+", lambda m: "_{" + m[0].translate(_SUB) + "}", text)
    text = re.sub(r"(?<!\\)\$|(?<!\\)\\[()\[\]]", " ", text)
    if "\\begin" not in text:  # commands that were escaped twice; in a matrix two backslashes end a row
        text = re.sub(r"\\\\(?=[A-Za-z])", r"\\", text)
    text = _GROUPED.sub(lambda m: re.sub(r"[^\d]", "", m[0]), text)
    text = _TEXT.sub(r"\\text", text.replace("\\!", ""))
    text = re.sub(r"\\([A-Za-z]+)", _command, text)
    text = text.replace("{,}", ",").replace("\\$", "$").replace("\\%", "%").replace("\\text{$}", "$")
    text = re.sub(r"\\text\s*\{\s*(?:,\s*)?(and|or)\s*\}", r" \1 ", text)
    text = re.sub(r"\\text\s*\{[\s.,;:]*\}", " ", text)
    return _END.sub("", _SPACES.sub(" ", text).replace("...", "\\dots ")).strip()


def _command(match: re.Match[str]) -> str:
    return _COMMANDS.get(match[1], match[0])


def _plain(char: str) -> str:
    if char.isascii():
        return char if char.isprintable() or char in "\n\t" else " "
    if char in _CHARACTERS:
        return _CHARACTERS[char]
    if unicodedata.category(char) in ("Cf", "Cc", "Cs"):
        return ""
    form = unicodedata.normalize("NFKC", char)
    if unicodedata.category(char) == "No" and "⁄" in form:  # a fraction in one character
        over, under = form.split("⁄")
        return f"\\frac{{{over}}}{{{under}}}"
    name = unicodedata.name(char, "")
    if name.startswith("GREEK ") and "LETTER" in name and " WITH " not in name:
        letter = name.rpartition(" ")[2].lower()
        return f"\\{letter.capitalize() if 'CAPITAL' in name else letter} "
    return form if "\uff01" <= char <= "\uff5e" else char

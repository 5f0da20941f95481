"""Published keyword lists that count reflection in completions of any task.

Each list is counted in lower-cased text. The lists define reflection differently and miss other wordings; use them to
compare a run with its base model, not to compare models.
"""

import re
from collections.abc import Callable, Mapping

Counter = Callable[[str], int]


def _parts(*words: str) -> Counter:
    """Count occurrences of each word, also inside longer words; matches may overlap."""
    return lambda text: sum(map(text.count, words))


def _pattern(pattern: str) -> Counter:
    compiled = re.compile(pattern)
    return lambda text: len(compiled.findall(text))


KEYWORD_LISTS: Mapping[str, Counter] = {
    # DeepSeek-R1 in Nature (2025), Extended Data Figure 1; here as whole words.
    "r1_zero": _pattern(r"\b(?:wait|mistake|however|but|retry|error|verify|wrong|evaluate|check)\b"),
    # oat-zero, analysis/eval_self_reflect.py.
    "oat_zero": _parts(
        "recheck",
        "rethink",
        "reevaluate",
        "re-evaluate",
        "reevaluation",
        "re-examine",
        "reexamine",
        "try again",
        "check again",
        "think again",
        "go over the steps",
    ),
    # understand-r1-zero, analysis/keyword_count.py.
    "understand_r1_zero": _parts(
        "recheck",
        "rethink",
        "reassess",
        "reevaluate",
        "re-evaluate",
        "reevaluation",
        "re-examine",
        "reexamine",
        "reconsider",
        "reanalyze",
        "double-check",
        "check again",
        "think again",
        "verify again",
        "go over the steps",
    ),
    # Open-Reasoner-Zero, orz/ppo/utils.py.
    "open_reasoner_zero": _pattern(r"wait,|recheck[,\s]|retry|alternatively,|however,"),
    # SimpleRL-Zoo, collect_results.py.
    "simplerl_zoo": _parts("recheck", "rethink", "try again", "wait", "alternatively", "retry", "however"),
}


def keyword_counts(text: str) -> dict[str, int]:
    """Count the hits of every list in ``text``, by name."""
    lowered = text.lower()
    return {name: count(lowered) for name, count in KEYWORD_LISTS.items()}

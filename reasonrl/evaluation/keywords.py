"""Published lists of words by which others count reflection in completions of any task.

Each figure is a count in lower-cased text. The lists differ in what they take for reflection and all of them miss
what a task writes in other words; so they are for comparison with the base model, not for comparison of models.
"""

import re
from collections.abc import Callable, Mapping

Counter = Callable[[str], int]


def _parts(*words: str) -> Counter:
    """Occurrences of each word, inside of longer words too; one place may count for two words."""
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
    """Hits of every list in ``text``, by name of the list."""
    lowered = text.lower()
    return {name: count(lowered) for name, count in KEYWORD_LISTS.items()}

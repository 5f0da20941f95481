"""The recipe gallery of the documentation, written from the comments at the top of the recipes."""

import re
from collections.abc import Iterator
from pathlib import Path

from doc_tables import code, table, text

ROOT = Path(__file__).resolve().parents[1]
MATH = "plugins/reasonrl-math/src/reasonrl_math/recipes"
CODE = "plugins/reasonrl-code/src/reasonrl_code/recipes"
GYM = "plugins/reasonrl-reasoning-gym/src/reasonrl_reasoning_gym/recipes"
HARDWARE = "[Hardware](../hardware.md) has memory, hours and money of each."
SECTIONS = (
    ("Countdown on a CPU", "recipes", ""),
    (
        "One for each algorithm",
        "recipes/algorithms",
        "With the model, the problems and the budget of `countdown_grpo`.",
    ),
    (
        "Conversations: a calculator and a guessing game",
        "recipes/conversations",
        "[Results](../learning.md#with-a-calculator) has the controls.",
    ),
    ("Qwen2.5 on GPUs", "recipes/qwen2.5", f"Countdown in TinyZero's format. {HARDWARE}"),
    ("Qwen3 on GPUs", "recipes/qwen3", f"The same problems. {HARDWARE}"),
    ("Mathematics", MATH, "From the package [reasonrl-math](../plugins/math.md)."),
    ("Code", CODE, "From the package [reasonrl-code](../plugins/code.md)."),
    ("Reasoning-gym", GYM, "From the package [reasonrl-reasoning-gym](../plugins/reasoning-gym.md)."),
)
"""Heading, folder, sentence below the heading."""

INTRODUCTION = """# Recipe gallery

`reasonrl train NAME` starts a recipe, `reasonrl recipes show NAME` prints it, `reasonrl recipes copy NAME` writes it to
a file for you to change. Curves are shown only of what was measured."""
FIGURE = """![Accuracy, completion length and attempts during training, six runs](../assets/learning.svg)

Expected curves of `countdown_ppo` and `countdown_grpo`, three seeds each. [Results](../learning.md) has the numbers."""
UNKNOWN = {
    "Not yet run": "Not run yet.",
    "Trained for a few steps only": "Trained for a few steps only, not measured.",
}
"""Words in a header -> what the gallery says instead of a result."""


def gallery() -> Iterator[str]:
    """Every recipe with what it trains, what it needs and what was measured."""
    yield INTRODUCTION
    for heading, folder, sentence in SECTIONS:
        yield from ("", f"## {heading}", "")
        yield from (sentence, "") if sentence else ()
        yield from table(("recipe", "trains", "needs", "result"), map(_row, sorted((ROOT / folder).glob("*.yaml"))))
        yield from (FIGURE,) if folder == "recipes" else ()


def _row(path: Path) -> tuple[str, str, str, str]:
    source = path.read_text(encoding="utf-8")
    head = header(source)
    name = re.search(r"^name: (\S+)", source, re.MULTILINE)
    what = re.split(r" (?:Hardware|Start|Measured): |: +reasonrl |, which says more", head)[0]
    needs = re.search(r"Hardware: (.*?)\.(?: |$)", head)
    return code(name[1] if name else path.stem), text(what), text(_plain(needs[1]) if needs else ""), text(result(head))


def header(source: str) -> str:
    """The comment at the top of a recipe as one line."""
    lines = re.match(r"(?:#.*\n)*", source)
    return " ".join(line.lstrip("# ") for line in (lines[0] if lines else "").splitlines())


def result(head: str) -> str:
    """What was measured, or that nothing was."""
    if measured := re.search(r"Measured: (.*?)\.(?: |$)", head):
        return measured[1].replace("->", "→")
    unknown = [said for words, said in UNKNOWN.items() if words in head]
    return unknown[0] if unknown else "Evaluation only." if "reasonrl eval" in head else "Not measured."


def _plain(needs: str) -> str:
    """Without references to files of the repository."""
    return re.sub(r" ?\(docs/[^)]*\)", "", needs)

"""What can be said of a command without running it: whether it, its options and its files exist."""

import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from stranger.markdown import ROOT

PLACEHOLDER = re.compile(r"^[A-Z][A-Z_]*$|^\$\w+$|^<.*>$|^\.\.\.$|^\[.*\]$")
"""Stands for something of the reader's: RUN, RECIPE, NAME, a variable of a script."""

PROGRAMS = (
    "pip",
    "pip3",
    "pytest",
    "vllm",
    "ssh",
    ".",
    "export",
    "cd",
    "mkdocs",
    "pre-commit",
    "tee",
    "just",
    "hf",
    "tensorboard",
    "scontrol",
    "test",
    "if",
    "then",
    "else",
    "fi",
    "sbatch",
    "head",
    "grep",
)
"""Programs of others and words of the shell, about which nothing is checked."""

LAUNCHERS = ("accelerate", "torchrun", "srun")
"""Programs that are given a command of reasonrl."""


class Words:
    """Checks words against ``described``, what ``describe.py`` printed."""

    def __init__(self, described: Mapping[str, Any]) -> None:
        self._cli = described["cli"]
        self._recipes = set(described["recipes"])

    def commands(self, text: str) -> Iterator[list[str]]:
        """The words of every command in lines for a shell, without variables before it."""
        for line in text.replace("\\\n", " ").splitlines():
            for part in re.split(r" && | ; | \| ", line):
                words = shlex.split(part, comments=True)
                while words and re.match(r"^\w+=", words[0]):
                    words = words[1:]
                if words:
                    yield words

    def faults(self, words: list[str]) -> list[str]:
        """Why the command cannot exist; empty if it can."""
        if words[0] == "reasonrl":
            return self._reasonrl(words[1:])
        if words[0] in LAUNCHERS and "reasonrl" in words:
            return self._reasonrl(words[words.index("reasonrl") + 1 :])
        if words[0] in ("python", "python3"):
            return self._python(words[1:])
        return [] if words[0] in (*PROGRAMS, *LAUNCHERS) else [f"no program {words[0]!r} is known to the suite"]

    def _python(self, words: list[str]) -> list[str]:
        if words[:2] == ["-m", "reasonrl"]:
            return self._reasonrl(words[2:])
        file = words[0] if words else ""
        if not file.endswith(".py"):
            return []
        if not (ROOT / file).is_file():
            return [f"no file {file} in the repository"]
        source = (ROOT / file).read_text(encoding="utf-8")
        return [f"{file} has no option {w}" for w in words if w.startswith("--") and f'"{w}"' not in source]

    def _reasonrl(self, words: list[str]) -> list[str]:
        node, path = self._cli, "reasonrl"
        while words and node["commands"] and not words[0].startswith("-"):
            if PLACEHOLDER.match(words[0]):
                return []
            if words[0] not in node["commands"]:
                return [f"{path} has no command {words[0]!r}"]
            node, path, words = node["commands"][words[0]], f"{path} {words[0]}", words[1:]
        options = [w.partition("=")[0] for w in words if re.match(r"^--?[a-z]", w)]
        unknown = [o for o in options if o not in node["options"]]
        return [] if node["passes_more"] else [f"{path} has no option {o}" for o in unknown]

    def recipe_of(self, words: list[str], folder: Path | None = None) -> list[str] | None:
        """Recipe and overrides of a train or sft command whose recipe is here; None if it names a reader's."""
        if "reasonrl" not in words:
            return None
        name, *rest = words[words.index("reasonrl") + 1 :] or [""]
        if name == "recipes" and rest[:1] == ["check"]:
            rest = rest[1:]
        elif name not in ("train", "sft"):
            return None
        given = [
            w for i, w in enumerate(rest) if not w.startswith("-") and rest[i - 1] not in ("--plugin", "--run-dir")
        ]
        is_here = given and (given[0] in self._recipes or ((folder or ROOT) / given[0]).is_file())
        return given if is_here and not any(PLACEHOLDER.match(w) for w in given) else None

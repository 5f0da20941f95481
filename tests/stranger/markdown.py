"""Code blocks and inline commands of the documentation.

A block names its language in the fence; ``LANGUAGES`` says what becomes of each. ``<!-- not run: REASON -->`` on the
line before a fence keeps a block from being run; what can be checked without running it still is.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

LANGUAGES = {
    "sh": "commands, run in the order of the page",
    "python": "run as a script; with a title that ends in .py, a file",
    "pycon": "an interactive session, run as a doctest",
    "yaml": "a recipe or a part of one, checked and trained for a few steps; with a title that ends in .yaml, a file",
    "json": "with a title, a file; else JSON that parses",
    "toml": "a file",
    "pyi": "an interface, must parse",
    "math": "an equation, rendered when the site is built",
    "text": "output and the like",
}

REASONS = (
    "needs a GPU",
    "needs the hub",
    "needs a server",
    "needs vLLM",
    "installs packages",
    "changes the clone",
    "takes hours",
    "an excerpt",
)
"""What may stand after ``not run:``; more words may follow a reason after a comma."""

_FENCE = re.compile(r"^(?P<indent> *)```(?P<info>[^\n`]*)\n(?P<text>.*?)^(?P=indent)```[ ]*$", re.MULTILINE | re.DOTALL)
_MARK = re.compile(r"<!-- not run: (?P<reason>.+?) -->\n\s*\Z")
_INLINE = re.compile(r"(?<!`)`([^`]+)`(?!`)")
_COMMAND = re.compile(r"^(\$ )?(reasonrl|pip3?|pytest|accelerate|torchrun) |^python3? (-m |\S+\.py)")


@dataclass(frozen=True, kw_only=True)
class Block:
    """One fenced block. ``not_run``: the reason of its mark, or None."""

    page: Path
    line: int
    language: str
    title: str
    text: str
    not_run: str | None

    @property
    def where(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def is_file(self) -> bool:
        """Whether the title names a file that the page's commands use."""
        return bool(Path(self.title).suffix)


def pages() -> list[Path]:
    """Every page that shows commands: the documentation and what lies beside the code."""
    top = [ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
    return [*top, *sorted((ROOT / "docs").rglob("*.md")), *sorted(ROOT.glob("plugins/*/README.md"))]


def blocks(page: Path, text: str | None = None) -> list[Block]:
    """The page's fenced blocks in their order. ``text`` stands for the page's own."""
    text = page.read_text(encoding="utf-8") if text is None else text
    found = []
    for match in _FENCE.finditer(text):
        indent, info = match["indent"], match["info"].strip()
        language, _, rest = info.partition(" ")
        title = re.fullmatch(r'title="([^"]+)"', rest.strip())
        mark = _MARK.search(text[: match.start()])
        found.append(
            Block(
                page=page,
                line=text[: match.start()].count("\n") + 1,
                language=language,
                title=title[1] if title else "",
                text=re.sub(f"^{indent}", "", match["text"], flags=re.MULTILINE),
                not_run=mark["reason"] if mark else None,
            )
        )
    return found


def inline_commands(page: Path, text: str | None = None) -> Iterator[tuple[int, str]]:
    """(line, command) of every ``reasonrl ...`` between backticks outside of blocks."""
    text = page.read_text(encoding="utf-8") if text is None else text
    # Blank lines in place of blocks keep the line numbers.
    outside = _FENCE.sub(lambda match: "\n" * match[0].count("\n"), text)
    for match in _INLINE.finditer(outside):
        code = " ".join(match[1].split())
        if "\n\n" not in match[1] and re.match(r"(\w+=\S+ )*reasonrl( |$)", code):
            yield outside[: match.start()].count("\n") + 1, code


def faults_of_form(block: Block) -> list[str]:
    """What is wrong with how the block is written; empty if nothing is."""
    faults = []
    if block.language not in LANGUAGES:
        faults.append(f"its language is {block.language!r}, expected one of {', '.join(LANGUAGES)}")
    if block.not_run is not None and block.not_run.split(",")[0] not in REASONS:
        faults.append(f"marked 'not run: {block.not_run}', expected one of {', '.join(REASONS)}")
    commands = [line for line in block.text.splitlines() if _COMMAND.match(line) and "[OPTIONS]" not in line]
    if block.language == "text" and commands:
        faults.append("holds a command, so its language must be sh")
    return [f"{block.where}: {fault}" for fault in faults]

"""Nothing promises what is not there yet: reasonrl on a package index, or an address of its repository."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PLACES = (".github", "benchmarks", "docs", "plugins", "reasonrl", "recipes", "scripts", "tests")
ENDINGS = {".md", ".py", ".yaml", ".yml", ".toml", ".tmpl", ".txt", ".cff"}
PROMISES = (
    # Installed by name: -e takes a folder, and a path has a slash.
    re.compile(r"(?:pip3?|uv|pipx) +(?:pip +)?(?:install|add)(?: +-[-\w]+)* +[\"']?reasonrl(?:-[\w-]+)?(?![\w/-])"),
    re.compile(r"https?://(?:www\.)?(?:github|gitlab|bitbucket|codeberg|pypi)\.\w+/[^\s)>\"'`]*reasonrl"),
    re.compile(r"https?://[\w.-]*reasonrl[\w.-]*\.(?:org|com|dev|io|ai|net)\b"),
)


def texts() -> Iterator[Path]:
    """Every text file that the repository has, this one and the history of changes left out."""
    found = [path for place in PLACES for path in sorted((ROOT / place).rglob("*"))]
    for path in [*ROOT.glob("*"), *found]:
        if path.suffix in ENDINGS and path.is_file() and path not in (Path(__file__), ROOT / "CHANGELOG.md"):
            yield path


def promises(text: str) -> list[str]:
    return [found[0] for pattern in PROMISES for found in pattern.finditer(text)]


def test_nothing_is_promised_before_it_is_there() -> None:
    paths = list(texts())
    assert len(paths) > 300
    found = {str(path.relative_to(ROOT)): promises(path.read_text(encoding="utf-8")) for path in paths}
    assert {name: said for name, said in found.items() if said} == {}


@pytest.mark.parametrize(
    "text",
    [
        "there after `pip install reasonrl`:",
        "pip install 'reasonrl[vllm]'",
        'pip install -U "reasonrl>=0.1"',
        "uv pip install reasonrl",
        "pip install reasonrl-math",
        "[reasonrl](https://github.com/reasonrl/reasonrl)",
        "https://pypi.org/project/reasonrl",
        "https://docs.reasonrl.dev",
    ],
)
def test_promises_are_found(text: str) -> None:
    assert promises(text)


@pytest.mark.parametrize(
    "text",
    [
        'pip install -e ".[vllm]"',
        "pip install -e plugins/reasonrl-math",
        "pip install -e path/to/reasonrl",
        "pip install reasoning-gym",
        "pip install -e . -c reasonrl/constraints.txt",
        "https://github.com/open-thought/reasoning-gym",
        'dependencies = ["reasonrl>=0.1,<0.2"]',
    ],
)
def test_what_is_true_today_is_no_promise(text: str) -> None:
    assert not promises(text)

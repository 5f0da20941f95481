"""Links, files and tests that the documentation names exist. The strict build checks more, but needs its tools."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = sorted([*DOCS.rglob("*.md"), *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md"))])
LINK = re.compile(r"\]\(([^)\s]+)\)")
PATH = re.compile(r"`((?:tests|plugins|reasonrl|recipes|scripts|docs)/[\w./-]+)`")


def slug(heading: str) -> str:
    """As the documentation's table of contents makes anchors."""
    words = re.sub(r"[^\w\s-]", "", heading.replace("`", "")).strip().lower()
    return re.sub(r"[\s-]+", "-", words)


def anchors(page: Path) -> set[str]:
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    return {slug(match) for match in re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)}


def leads_somewhere(page: Path, link: str) -> bool:
    if link.startswith(("https://", "http://")):
        return True
    file, _, anchor = link.partition("#")
    target = (page.parent / file).resolve() if file else page
    return target.exists() and (not anchor or anchor in anchors(target))


def test_links_lead_somewhere() -> None:
    links = [(page, link) for page in PAGES for link in LINK.findall(page.read_text(encoding="utf-8"))]
    assert len(links) > 100
    assert not [(page, link) for page, link in links if not leads_somewhere(page, link)]


def test_paths_in_the_repository_exist() -> None:
    paths = [(page, path) for page in PAGES for path in PATH.findall(page.read_text(encoding="utf-8"))]
    assert len(paths) > 20
    assert not [(page, path) for page, path in paths if not (ROOT / path).exists()]


def test_every_page_is_in_the_navigation() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:")[2]
    listed = re.findall(r": ([\w/.-]+\.md)$", navigation, flags=re.MULTILINE)
    assert sorted(listed) == sorted(p.relative_to(DOCS).as_posix() for p in DOCS.rglob("*.md"))


def test_every_reason_code_of_countdown_is_explained() -> None:
    from reasonrl_countdown.expression import REASONS

    page = (DOCS / "concepts" / "countdown.md").read_text(encoding="utf-8")
    for reason in (*REASONS, "no_answer", "several_answers"):
        assert f"`{reason}`" in page, reason


def test_what_readers_search_for_is_there() -> None:
    text = " ".join(" ".join(page.read_text(encoding="utf-8").lower().split()) for page in DOCS.rglob("*.md"))
    terms = (
        "resume a run",
        "training loop",
        "corrupted checkpoint",
        "out of memory",
        "entropy collapse",
        "stale weights",
    )
    terms += ("reward hacking", "off-policy", "supervised fine-tuning", "tensor parallel", "weight sync", "bit-exact")
    assert not [term for term in terms if term not in text]


STILTED = re.compile(
    r"\b(goes on|anew|nobody|by way of|of (?:its|their) own|(?<!long )as it is|bit by bit|stands (?:there|in|for))\b",
    re.IGNORECASE,
)


def test_no_page_reads_like_a_translation() -> None:
    written = [page for page in PAGES if page.parent.name != "reference"]
    lines = [(page.name, line) for page in written for line in page.read_text(encoding="utf-8").splitlines()]
    assert not [(name, line) for name, line in lines if STILTED.search(line)]

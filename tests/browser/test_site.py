"""The documentation, built and served, in a real browser: every page on a desktop and on a phone, search, dark mode."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from support.browser import MISSING, Visit, find_chromium, visit

pytestmark = pytest.mark.browser
ROOT = Path(__file__).resolve().parents[2]
PHONE, DESKTOP = 390, 1280
FEW = ("", "get-started/", "explain/rl-from-zero/", "reference/cli/", "reference/recipes/")
"""Pages with prose, code, equations, figures and tables."""

OVERFLOW = "document.documentElement.scrollWidth - window.innerWidth"
BROKEN_IMAGES = "[...document.images].filter(i => !(i.complete && i.naturalWidth)).map(i => i.src)"
CONTRAST = """all => {
  const rgb = color => color.match(/[\\d.]+/g).map(Number);
  const light = color => {
    const parts = color.slice(0, 3).map(v => v / 255).map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2];
  };
  const over = (top, below) => top.slice(0, 3).map((v, i) => v * (top[3] ?? 1) + below[i] * (1 - (top[3] ?? 1)));
  const behind = e => {
    if (!e) return [255, 255, 255];
    const own = rgb(getComputedStyle(e).backgroundColor);
    return (own[3] ?? 1) === 1 ? own : over(own, behind(e.parentElement));
  };
  return all.filter(e => e.textContent.trim() && e.offsetParent).map(e => {
    const back = behind(e), text = over(rgb(getComputedStyle(e).color), back);
    const [high, low] = [light(back), light(text)].sort((a, b) => b - a);
    return [(high + 0.05) / (low + 0.05), e.tagName, e.textContent.trim().slice(0, 30)];
  }).sort((a, b) => a[0] - b[0])[0];
}"""
"""The least contrast of text with what is behind it, as WCAG defines it, and where it is."""


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the built pages."""
    find_chromium()
    pytest.importorskip("mkdocs", reason=MISSING % "there is no mkdocs, which is in the extra docs")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def address(site: Path) -> Iterator[str]:
    """Search needs a server: from a file, a page may not read the index."""

    def handler(*args: Any, **kwargs: Any) -> _Quiet:
        return _Quiet(*args, directory=str(site), **kwargs)

    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


def too_wide(seen: Visit) -> int:
    """Pixels that the page is wider than the window, once the sidebars are in their places."""
    from playwright.sync_api import TimeoutError as NotInTime

    try:
        seen.page.wait_for_function(f"{OVERFLOW} <= 0", timeout=2_000)
    except NotInTime:
        return int(seen.page.evaluate(OVERFLOW))
    return 0


def faults(seen: Visit) -> Iterator[str]:
    """What is wrong with the open page, at both widths."""
    for width in (PHONE, DESKTOP):
        seen.page.set_viewport_size({"width": width, "height": 800})
        if over := too_wide(seen):
            yield f"{over} pixels too wide at {width}"
    yield from (f"broken image {source}" for source in seen.page.evaluate(BROKEN_IMAGES))
    yield from (f"complains: {text}" for text in seen.complaints)
    yield from (f"asks for {url}" for url in seen.requests)
    seen.complaints.clear()
    seen.requests.clear()


def test_every_page_is_clean_on_a_desktop_and_on_a_phone(site: Path, address: str) -> None:
    pages = sorted(file.relative_to(site).as_posix() for file in site.rglob("*.html"))
    assert len(pages) >= 80
    wrong: dict[str, list[str]] = {}
    with visit(address, viewport={"width": PHONE, "height": 800}) as seen:
        for page in pages:
            answer = seen.page.goto(address + page.removesuffix("index.html"))
            assert answer.status == 200, page
            if found := list(faults(seen)):
                wrong[page] = found
    assert wrong == {}


def test_a_page_with_every_fault_is_noticed(site: Path, address: str) -> None:
    bad = site / "bad.html"
    bad.write_text(
        "<div style='width: 2000px'>wide</div><img src=nothing.png><script src=http://localhost:9/x.js></script>"
    )
    try:
        with visit(f"{address}bad.html") as seen:
            found = " ".join(faults(seen))
    finally:
        bad.unlink()
    for part in ("too wide at 390", "too wide at 1280", "broken image", "complains: ", "asks for http://localhost:9/"):
        assert part in found


def test_search_finds_a_page(address: str) -> None:
    with visit(address) as seen:
        # The search listens to keys, once it has read its index.
        ready = seen.page.locator(".md-search-result__meta", has_not_text="Initializing")
        ready.wait_for(state="attached")
        seen.page.locator(".md-search__input").press_sequentially("corrupted checkpoint")
        seen.page.wait_for_selector(".md-search-result__item a")
        links = seen.page.locator(".md-search-result__item a").evaluate_all("all => all.map(e => e.href)")
        assert any("/troubleshooting/" in link or "/run-folder/" in link for link in links)
        seen.page.locator(".md-search-result__item a").first.click()
        seen.page.wait_for_url(lambda url: url != address)
        assert (seen.complaints, seen.requests) == ([], [])


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_can_be_read(address: str, scheme: str) -> None:
    with visit(address, color_scheme=scheme) as seen:
        for page in FEW:
            seen.page.goto(address + page)
            back = seen.page.evaluate("getComputedStyle(document.body).backgroundColor")
            assert (back == "rgb(255, 255, 255)") == (scheme == "light")
            text = seen.page.locator(
                "article :is(h1, h2, h3, p, li, td, th, a:not(.headerlink), p code, td code, math)"
            )
            contrast, *where = text.evaluate_all(CONTRAST)
            assert contrast >= 4.5, where


def test_figures_follow_the_scheme(address: str) -> None:
    with visit(f"{address}explain/rl-from-zero/", color_scheme="dark") as seen:
        filters = seen.page.locator("article img[src$='.svg']").evaluate_all(
            "all => all.map(e => getComputedStyle(e).filter)"
        )
        assert filters
        assert all("invert" in value for value in filters)

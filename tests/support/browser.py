"""Headless Chromium, driven by playwright, that lists what a page complains about and asks of the network."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = os.environ.get("REASONRL_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
MISSING = (
    "the browser tests did NOT run: %s; they need Chromium (`apt-get install chromium`, or its path in "
    "REASONRL_CHROMIUM) and `pip install -e '.[browser]'`"
)


@dataclass
class Visit:
    """A page, and what it said and fetched so far. Its own address and what lies below it are not counted."""

    page: Any
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)


def find_chromium() -> str:
    """The executable. Skips the test, and says it in the summary, if Chromium or playwright is missing."""
    if CHROMIUM is None:
        pytest.skip(MISSING % "there is no Chromium")
    pytest.importorskip("playwright", reason=MISSING % "there is no playwright")
    return CHROMIUM


@contextmanager
def visit(where: Path | str, fragment: str = "", **context: Any) -> Iterator[Visit]:
    """Open a file or an address. ``context``: playwright's options, such as ``color_scheme="dark"``."""
    executable = find_chromium()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        try:
            seen = Visit(browser.new_context(**context).new_page())
            address = where if isinstance(where, str) else where.resolve().as_uri()
            seen.page.set_default_timeout(60_000)
            seen.page.on("console", lambda message: seen.complaints.append(message.text))
            seen.page.on("pageerror", lambda error: seen.complaints.append(str(error)))
            seen.page.on(
                "dialog", lambda dialog: (seen.complaints.append(f"dialog: {dialog.message}"), dialog.dismiss())
            )
            seen.page.on("request", lambda asked: asked.url.startswith(address) or seen.requests.append(asked.url))
            seen.page.goto(address + fragment)
            yield seen
        finally:
            browser.close()

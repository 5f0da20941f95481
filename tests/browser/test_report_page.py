"""The report in a real browser: it complains of nothing, asks for nothing, and its filters, search and keys work."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.browser import Visit, visit
from support.report_runs import HOSTILE, record, transcribe
from support.sick_runs import write_run

from reasonrl.analysis.report import write_report

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """200 plain completions, one with figures for its tokens, and all hostile ones as completion, answer and reason."""
    run = write_run(tmp_path_factory.mktemp("browser") / "run")
    for step in range(1, 21):
        for_step = [record(f"try {place} of step {step}", reward=float(place % 2)) for place in range(10)]
        transcribe(run, step, *for_step)
    tokens = {"tokens": ["12", "-", "5"], "entropy": [0.1, 2.0, None], "advantage": [-1.0, 0.0, 1.0]}
    transcribe(run, 21, record("12-5", **tokens))
    bad = [record(text, answer=text[:99], reasons={"countdown": text[:99]}, problem_id=text[:99]) for text in HOSTILE]
    transcribe(run, 22, *bad)
    return write_report([run], refresh=True, marks={})


@pytest.fixture
def seen(report: Path) -> Iterator[Visit]:
    with visit(report) as opened:
        opened.page.wait_for_selector("#rows button")
        yield opened
        assert opened.complaints == []
        assert opened.requests == []


def count(seen: Visit) -> str:
    return str(seen.page.inner_text("#count"))


def choose(seen: Visit, **fields: Any) -> None:
    for name, value in fields.items():
        field = seen.page.locator(f"[name={name}]")
        if field.evaluate("e => e.tagName") == "SELECT":
            field.select_option(value)
        else:
            field.fill(value)


def test_filters_and_search(seen: Visit) -> None:
    everything = 20 * 10 + 1 + len(HOSTILE)
    assert count(seen) == f"{everything} of {everything} completions"
    choose(seen, step0="3", step1="4", rew0="0.5")
    assert count(seen).startswith("10 of")
    choose(seen, q="TRY 7 of step 3")
    assert count(seen).startswith("1 of")
    assert "try 7 of step 3" in seen.page.inner_text("#sample")
    assert seen.page.inner_text("#sample mark") == "try 7 of step 3"
    seen.page.reload()  # the filters are part of the address
    seen.page.wait_for_selector("#rows button")
    assert count(seen).startswith("1 of")
    seen.page.click("button[type=reset]")
    seen.page.wait_for_function(f"document.getElementById('count').textContent.startsWith('{everything} of')")
    choose(seen, reason="ok", verdict="correct", len0="7", len1="7", part="countdown", order="l")
    assert count(seen).startswith("201 of")
    assert seen.page.inner_text("#place") == "page 1 of 5"
    seen.page.click("#next")
    assert seen.page.inner_text("#place") == "page 2 of 5"


def test_everything_works_by_keyboard(seen: Visit) -> None:
    page = seen.page
    page.keyboard.press("/")
    page.keyboard.type("of step 2")
    assert page.evaluate("document.activeElement.name") == "q"
    page.keyboard.press("Escape")
    page.evaluate("document.activeElement.blur()")
    first = page.inner_text("#sample")
    page.keyboard.press("j")
    assert page.inner_text("#sample") != first
    page.keyboard.press("ArrowDown")
    page.keyboard.press("k")
    page.keyboard.press("ArrowUp")
    assert page.inner_text("#sample") == first
    page.focus(".chart")
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    assert page.inner_text(".chart output").startswith("step 2")


@pytest.mark.parametrize("place", range(len(HOSTILE)))
def test_hostile_completions_are_text(seen: Visit, place: int) -> None:
    choose(seen, step0="22", step1="22")
    seen.page.locator("#rows button").nth(place).click()
    shown = seen.page.inner_text("#sample")
    assert not set(shown) & {"\x1b", "\u202e", "\u2066", "\u2028"}
    assert len(shown) < 10_000
    assert seen.page.locator("#sample :is(script, img, style, iframe)").count() == 0
    begin = HOSTILE[place][:8]
    assert begin.encode("unicode_escape").decode() in shown


def test_tokens_are_colored(seen: Visit) -> None:
    choose(seen, step0="21", step1="21")
    seen.page.select_option("#color", "entropy")
    colors = seen.page.locator("#sample .token").evaluate_all("all => all.map(e => e.style.backgroundColor)")
    assert len({*colors}) == 3
    assert seen.page.locator("#sample .token").nth(1).get_attribute("title") == "entropy 2"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_needs_no_scrolling_sideways(report: Path, scheme: str) -> None:
    with visit(report, viewport={"width": 375, "height": 740}, color_scheme=scheme) as seen:
        seen.page.wait_for_selector("#rows button")
        assert seen.page.evaluate("document.documentElement.scrollWidth") == 375
        back = seen.page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (back == "rgb(255, 255, 255)") == (scheme == "light")
        assert seen.complaints == []

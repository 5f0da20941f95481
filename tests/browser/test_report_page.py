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
    """200 plain completions, three with figures for tokens, and all hostile ones as completion, answer and reason."""
    run = write_run(tmp_path_factory.mktemp("browser") / "run")
    for step in range(1, 21):
        for_step = [record(f"try {place} of step {step}", reward=float(place % 2)) for place in range(10)]
        transcribe(run, step, *for_step)
    figures = {"lengths": [2, 1, 1, 2], "entropy": [0.1, 2.0, None, 0.5], "advantage": [-1.0, 0.0, 1.0, 1.0]}
    markup = {"lengths": [3, len(HOSTILE[0]) - 3], "logprob_gap": [-0.2, 0.1], "advantage": 1.0}
    left_out = {"lengths": [1], "advantage": 0.0}
    some = [record("12-5 😀", tokens=figures), record(HOSTILE[0], tokens=markup), record("7", tokens=left_out)]
    transcribe(run, 21, *some)
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
    everything = 20 * 10 + 3 + len(HOSTILE)
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
    assert count(seen).startswith("203 of")
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


def token_colors(seen: Visit) -> list[str]:
    script = "all => all.map(e => getComputedStyle(e).backgroundColor)"
    return list(seen.page.locator("#completion .token").evaluate_all(script))


def test_tokens_are_colored(seen: Visit) -> None:
    choose(seen, step0="21", step1="21")
    assert seen.page.locator("#completion .token").count() == 0
    choose(seen, color="entropy")
    first, second, _, last = token_colors(seen)
    assert len({first, second, last}) == 3
    assert seen.page.inner_text("#completion") == "12-5 😀"
    assert "nats" in seen.page.inner_text("#sample .scale")
    seen.page.locator("#completion .token").nth(1).hover()
    assert seen.page.inner_text("#token") == 'token "-": entropy 2'
    seen.page.mouse.move(0, 0)
    seen.page.evaluate("document.activeElement.blur()")
    seen.page.keyboard.press("c")  # the next of the three, then the first again
    assert seen.page.locator("[name=color]").input_value() == ""
    for name in ("logprob_gap", "advantage"):
        seen.page.keyboard.press("c")
        assert seen.page.locator("[name=color]").input_value() == name
    lost, none, won, _ = token_colors(seen)
    assert len({lost, none, won}) == 3
    seen.page.focus("#completion")
    seen.page.keyboard.press("End")
    assert seen.page.inner_text("#token") == 'token " 😀": advantage 1'
    seen.page.keyboard.press("ArrowLeft")
    seen.page.keyboard.press("c")
    assert seen.page.inner_text("#token") == 'token "5": entropy unknown'
    seen.page.keyboard.press("ArrowRight")  # the focus stays
    assert seen.page.inner_text("#token") == 'token " 😀": entropy 0.5'
    seen.page.reload()  # the choice is part of the address
    seen.page.wait_for_selector("#completion .token")
    assert seen.page.locator("[name=color]").input_value() == "entropy"


def test_colored_text_can_be_searched_and_is_text(seen: Visit) -> None:
    choose(seen, step0="21", step1="21", color="logprob_gap", q="ipt>ALE")
    assert seen.page.inner_text("#completion") == HOSTILE[0]
    assert "".join(seen.page.locator("#completion mark").all_inner_texts()) == "ipt>ale"
    assert seen.page.locator("#completion script").count() == 0
    choose(seen, q="7")
    assert "the update did not compute it" in seen.page.inner_text("#sample .scale")
    choose(seen, q="", step0="22", step1="22")
    assert "No figures per token were kept" in seen.page.inner_text("#sample .scale")


def test_an_address_with_unknown_filters_opens(report: Path) -> None:
    with visit(report, "#samples?length=5&step0=3&step1=4&run=99&color=x") as seen:
        seen.page.wait_for_selector("#rows button")
        assert count(seen).startswith("20 of")
        assert seen.complaints == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colored_tokens_are_readable(report: Path, scheme: str) -> None:
    """Text on the strongest color has a contrast of 4.5 or more, as WCAG AA asks."""
    with visit(report, color_scheme=scheme) as seen:
        for name in ("--high", "--low"):
            luminance = """name => {
                const box = document.body.appendChild(document.createElement("i"));
                box.style.backgroundColor = `var(${name})`;
                const parts = [getComputedStyle(box).backgroundColor, getComputedStyle(document.body).color];
                return parts.map((text) => {
                    const channels = text.match(/[0-9.]+/g).slice(0, 3).map((one) => one / 255);
                    const linear = channels.map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
                    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
                });
            }"""
            low, high = sorted(seen.page.evaluate(luminance, name))
            assert (high + 0.05) / (low + 0.05) >= 4.5, (scheme, name)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_needs_no_scrolling_sideways(report: Path, scheme: str) -> None:
    with visit(report, viewport={"width": 375, "height": 740}, color_scheme=scheme) as seen:
        seen.page.wait_for_selector("#rows button")
        assert seen.page.evaluate("document.documentElement.scrollWidth") == 375
        back = seen.page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (back == "rgb(255, 255, 255)") == (scheme == "light")
        assert seen.complaints == []

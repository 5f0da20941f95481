"""Tokens on the report's page: their place in the shown text, their figures, and the room that they may take."""

import base64
import gzip
import json
import random
from pathlib import Path
from typing import Any

import pytest
from support.report_runs import record, transcribe
from support.sick_runs import write_run

from reasonrl.analysis.report import build_page, samples
from reasonrl.analysis.report.clean import Cleaner, left_out
from reasonrl.analysis.report.tokens import read_tokens

HEAD, TAIL = 8, 4


def tokens(*lengths: int, **figures: Any) -> dict[str, Any]:
    return {"lengths": list(lengths), "logprob_gap": None, "advantage": None, "entropy": None} | figures


def tokens_of(text: str, lengths: list[int], **figures: Any) -> dict[str, Any] | None:
    shown = Cleaner().shorten(text, HEAD, TAIL)
    found = read_tokens({"completion": text, "tokens": tokens(*lengths, **figures)}, shown, HEAD, TAIL)
    if found is not None:
        assert sum(found["n"]) == len(shown.encode("utf-16-le", "surrogatepass")) // 2
    return found


@pytest.mark.parametrize(
    ("text", "lengths", "shown", "entropy"),
    [
        ("12-5", [2, 1, 1], [2, 1, 1], [10, 20, 30]),
        ("12", [1, 0, 1], [1, 1], [10, 30]),  # the second adds no text
        ("1\x1b2", [1, 1, 1], [1, 4, 1], [10, 20, 30]),  # escaped as \x1b
        ("😀2", [1, 0, 1], [2, 1], [10, 30]),  # two units in JavaScript
        ("1234", [1, 1, 1], [1, 1, 1, 1], [10, 20, 30, None]),  # the last token has no figures
        ("x" * 6 + "y" * 9 + "z" * 3, [6, 9, 3], [6, 2, len(left_out(6)), 1, 3], [10, 20, None, 20, 30]),
    ],
)
def test_every_shown_token_has_its_figure(
    text: str, lengths: list[int], shown: list[int], entropy: list[int | None]
) -> None:
    found = tokens_of(text, lengths, entropy=[0.1, 0.2, 0.3])
    assert found == {"n": shown, "entropy": entropy}


def test_a_figure_may_be_the_same_for_all_or_missing() -> None:
    assert tokens_of("12", [1, 1], advantage=-1.5, logprob_gap=[0.0004, None]) == {
        "n": [1, 1],
        "advantage": -150,
        "logprob_gap": [0, None],
    }
    assert tokens_of("123", [1, 1], advantage=2) == {"n": [1, 1, 1], "advantage": [200, 200, None]}
    assert tokens_of("12", [1, 1], entropy=[1e300, -1e300]) == {"n": [1, 1], "entropy": [10**8, -(10**8)]}


@pytest.mark.parametrize(
    "wrong",
    [
        None,
        [1, 1],
        {},
        tokens(),
        tokens(1, 1),
        tokens(1, 2, advantage=1),
        tokens(-1, 3, advantage=1),
        tokens("1", advantage=1),  # type: ignore[arg-type]
        tokens(True, advantage=1),
        tokens(10**30, advantage=1),
        tokens(1, 1, entropy=[1]),
        tokens(1, 1, advantage="high"),
    ],
)
def test_what_does_not_fit_is_left_out(wrong: Any) -> None:
    assert read_tokens({"completion": "12", "tokens": wrong}, "12", HEAD, TAIL) is None


def page_records(run: Path, **options: Any) -> list[dict[str, Any]]:
    return json.loads(gzip.decompress(base64.b64decode(samples.collect([run], **options).packed)))


def test_a_secret_is_redacted_from_tokens_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_API_KEY", "very-secret-value")
    run = write_run(tmp_path / "run")
    text = "say very-secret-value now"
    of_each = tokens(*[1] * len(text), entropy=[1.0] * len(text))
    transcribe(run, 40, record(text, tokens=of_each), record("plain", tokens=tokens(5, entropy=[1.0])))
    secret, plain = page_records(run)
    assert secret["c"] == "say [redacted] now"
    assert ("t" in secret, "t" in plain) == (False, True)


def test_figures_make_room_before_completions_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = write_run(tmp_path / "run")
    text, rng = "3+5=8, " * 20, random.Random(0)
    for step in range(1, 31):
        of_each = [tokens(*[1] * len(text), entropy=[rng.random() * 9 for _ in text]) for _ in range(4)]
        transcribe(run, step, *(record(f"{text}{step} {place}", tokens=one) for place, one in enumerate(of_each)))
    whole = samples.collect([run])
    assert (whole.colored, whole.is_complete) == (120, True)
    monkeypatch.setattr(samples, "MAX_BYTES", len(whole.packed) // 2)
    less = samples.collect([run])
    assert len(less.packed) <= len(whole.packed) // 2
    assert less.is_complete
    assert 20 < less.colored < 80
    assert f"{less.colored} can be colored by the entropy of each token" in build_page([run])
    assert samples.collect([run], 120).colored == 120, "as many as asked for, however large"


def test_the_selection_of_a_step_begins_with_what_has_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = write_run(tmp_path / "run")
    for step in range(1, 9):
        first = record("12", tokens=tokens(1, 1, entropy=[1.0, 2.0]))
        transcribe(run, step, first, *(record(f"more {place}") for place in range(9)))
    monkeypatch.setattr(samples, "DEFAULT_LIMIT", 8)
    assert samples.collect([run]).colored == 8


def test_the_page_says_that_there_are_no_figures(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    transcribe(run, 40, record("plain"))
    assert "Tokens cannot be colored" in build_page([run])

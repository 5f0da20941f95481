"""`reasonrl report`: one page without network, in which what a model wrote is text."""

import base64
import gzip
import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from support.report_runs import HOSTILE, record, transcribe
from support.sick_runs import write_run
from typer.testing import CliRunner

from reasonrl.analysis.report import build_page, samples
from reasonrl.analysis.report.charts import Chart, Line
from reasonrl.analysis.report.page import with_code
from reasonrl.analysis.report.series import Point, thin
from reasonrl.analysis.report.svg import draw, figure
from reasonrl.cli.app import app
from reasonrl.plugins import load_plugins


class Page(HTMLParser):
    """The elements of a page, and the texts of its scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def records(self) -> list[dict[str, Any]]:
        tags = [i for i, (tag, attrs) in enumerate(self.tags) if attrs.get("id") == "data"]
        assert len(tags) == 1
        packed = next(text for text in self.texts if text.startswith("H4sI"))
        return json.loads(gzip.decompress(base64.b64decode(packed)))


def call(*arguments: object, code: int = 0) -> str:
    result = CliRunner().invoke(app, ["report", *map(str, arguments)], prog_name="reasonrl")
    assert result.exit_code == code, result.output
    return result.stdout if code == 0 else result.stderr


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("runs") / "healthy")


def test_a_report_has_every_section_and_fetches_nothing(run: Path) -> None:
    transcribe(run, 40, record("3*5=15 yes"))
    assert f"report: {run / 'report.html'}" in call(run).replace("\n", " ")
    page = Page((run / "report.html").read_text(encoding="utf-8"))
    ids = {attrs.get("id") for _, attrs in page.tags}
    assert ids >= {"runs", "curves", "changes", "rewards", "time", "samples"}
    assert not [(tag, attrs) for tag, attrs in page.tags if tag == "link" or "src" in attrs]
    assert all(attrs["href"].startswith("#") for _, attrs in page.tags if attrs.get("href"))
    titles = set(page.texts)
    assert {"Reward", "Entropy", "KL of a step", "Held-out accuracy: held_out", "Completion length"} <= titles
    assert {"18% (15% to 21%)", "completed"} <= titles
    assert [one["c"] for one in page.records()] == ["3*5=15 yes"]


def test_hostile_text_is_text_everywhere(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_API_KEY", "very-secret-value")
    bad = HOSTILE[0]
    more = {"problem_id": bad, "answer": bad, "reasons": {bad: bad}, "components": {bad: 1.0}, "info": {bad: [bad]}}
    several = [record(text, **more) for text in (*HOSTILE, "x" * 2900 + "very-secret-value" + "y" * 9000)]
    transcribe(run, 40, *several)
    folder = run / "evals" / "step_000040"
    folder.mkdir(exist_ok=True)
    suite = {"accuracy": 0.5, "ci95": [0.4, 0.6], "behavior": {bad: 1.0}}
    (folder / "summary.json").write_text(json.dumps({bad: suite}), encoding="utf-8")
    text = build_page([run])
    (folder / "summary.json").unlink()
    page = Page(text)
    assert [attrs for tag, attrs in page.tags if tag == "script"] == [
        {"type": "application/octet-stream", "id": "data"},
        {},
    ]
    assert not [attrs for _, attrs in page.tags for name in attrs if name.startswith("on")]
    assert not any(tag == "img" for tag, _ in page.tags)
    records = page.records()
    assert len(records) == len(several)
    shown = json.dumps(records, ensure_ascii=False) + text
    assert not [char for char in ("\x1b", "\u202e", "\u2066", "\u2028") if char in shown]
    assert "very-secret" not in shown
    assert max(len(one["c"]) for one in records) < 5000
    assert "characters left out" in records[5]["c"]


def test_what_the_doctor_puts_in_backticks_is_code() -> None:
    assert with_code("run `reasonrl resume a<b`, or `") == "run <code>reasonrl resume a&lt;b</code>, or `"


def test_a_large_run_stays_small_and_says_what_it_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = write_run(tmp_path / "large")
    for step in range(1, 41):
        transcribe(run, step, *(record(f"{step} {place} " + "3+5=8, " * 20) for place in range(30)))
    monkeypatch.setattr(samples, "DEFAULT_LIMIT", 100)
    found = samples.collect([run])
    assert (found.shown, found.found) == (
        {"training": 100, "evaluation": 0},
        {"training": 1200, "evaluation": 0},
    )
    kept = json.loads(gzip.decompress(base64.b64decode(found.packed)))
    assert {one["s"] for one in kept} == set(range(1, 41))
    monkeypatch.setattr(samples, "MAX_BYTES", 3000)
    assert len(samples.collect([run]).packed) <= 3000
    assert samples.collect([run], 1200).is_complete
    assert "100 of 1,200" not in build_page([run], samples=0)


@pytest.mark.parametrize(
    ("counts", "limit", "shares"),
    [([1, 5, 5], 8, [1, 3, 4]), ([2, 2], 9, [2, 2]), ([9] * 4, 2, [0, 1, 0, 1]), ([], 3, []), ([3, 0], 0, [0, 0])],
)
def test_a_limit_is_divided_evenly(counts: list[int], limit: int, shares: list[int]) -> None:
    assert samples.allot(counts, limit) == shares
    assert samples.spread(5, 5) == [0, 1, 2, 3, 4]


def test_long_curves_keep_their_extremes() -> None:
    points = [Point(step, 0.0, 0.0, 0.0) for step in range(10_000)]
    points[5000] = Point(5000, 1.0, 1.0, 1.0)
    series = thin(points)
    assert len(series) <= 240
    assert max(point.high for point in series) == 1.0
    assert series[-1].step == 9999


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (999.7, "1", "1,000"),
        (-999.7, "1", "-1,000"),
        (999.2, "1", "999"),
        (0.12, "fraction", "12%"),
        (1e-5, "1", "1.0e-05"),
    ],
)
def test_figures_are_short_and_never_in_powers_of_ten_where_they_need_not(value: float, unit: str, text: str) -> None:
    assert figure(value, unit) == text


@pytest.mark.parametrize("values", [[0.0], [5.0, 5.0], [-1e-9, 1e9], [1.7e308, -1.7e308], [1e-300, 2e-300]])
def test_any_values_can_be_drawn(values: list[float]) -> None:
    series = tuple(Point(step, value, value, value) for step, value in enumerate(values))
    text = draw(Chart(title="t", unit="1", meaning="", lines=[Line(label="l", color=0, series=series)]))
    assert "nan" not in text
    assert "inf" not in text


def test_before_and_after_lists_figures_with_their_intervals_alone(tmp_path: Path) -> None:
    """Of a summary as a run writes it, with intervals and difficulties."""
    run = write_run(tmp_path / "run")
    figures: dict[str, Any] = {"accuracy": 0.5, "ci95": [0.4, 0.6], "pass@8": 0.75, "intervals": {"pass@8": [0.7, 0.8]}}
    figures |= {"problems": 64, "samples": 8, "by_difficulty": [{"difficulty": "1"}], "behavior": {"attempts": 2.0}}
    last = run / "evals" / "step_000040"
    last.mkdir()
    (last / "summary.json").write_text(json.dumps({"held_out": figures}), encoding="utf-8")
    texts = [text for text in Page(build_page([run], samples=0)).texts if text.strip()]
    place = texts.index("pass@8 (held_out)")
    assert texts[place : place + 3] == ["pass@8 (held_out)", "-", "75% (70% to 80%)"]
    assert not [text for text in texts if text.startswith(("intervals", "by_difficulty", "behavior (", "problems"))]


def test_seeds_are_pooled_and_other_recipes_are_not(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / f"s{seed}", recipe={"seed": seed}) for seed in (0, 1)]
    runs.append(write_run(tmp_path / "other", recipe={"optimizer": {"learning_rate": 0.5, "fused": True}}))
    output = tmp_path / "all.html"
    call(tmp_path, "--output", output)  # a folder of runs
    texts = Page(output.read_text(encoding="utf-8")).texts
    assert [text for text in texts if "(2 seeds)" in text]
    assert "optimizer.learning_rate" in texts
    assert "by_hand: optimizer.learning_rate=0.5, optimizer.fused=true" in texts


def test_wrong_arguments_are_one_line(run: Path, tmp_path: Path) -> None:
    other = tmp_path / "notes.html"
    other.write_text("mine")
    assert "is not a report" in call(run, "-o", other, code=2)
    assert "is not a run folder" in call(tmp_path / "none", code=2)
    assert "cannot write" in call(run, "-o", tmp_path / "no" / "x.html", code=2)
    assert other.read_text() == "mine"


def test_damaged_and_young_runs_have_a_report(tmp_path: Path) -> None:
    run = write_run(tmp_path / "damaged", [], outcome=None)
    transcribe(run, 1, {"a": 1})
    (run / "transcripts" / "step_000002.jsonl").write_bytes(b'[[[\n{"completion": 5}\n{"compl')
    (run / "summary.json").write_text("{")
    (run / "evals" / "step_000000" / "summary.json").write_text("[1]")
    text = build_page([run])
    assert "4 lines could not be read" in text
    assert "No step has finished yet" in text


@pytest.mark.parametrize("depth", [450, 900, 5000])
def test_a_record_of_any_depth_breaks_no_report(run: Path, depth: int) -> None:
    transcribe(run, 40, record("plain"), record("deep"))
    path = run / "transcripts" / "step_000040.jsonl"
    deep = '"info": ' + "[" * depth + "]" * depth
    path.write_text(path.read_text(encoding="utf-8").replace('"info": {"target": 15}', deep, 2), encoding="utf-8")
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(record("last")) + "\n")
    assert Page(build_page([run])).records()[-1]["c"] == "last"


def test_attempts_are_marked_where_the_text_is_as_written(run: Path) -> None:
    text = "3+5=8, 8*2=16 no\n3*5=14\n3*5=15 yes\n</think>"
    info = {"numbers": [3, 5], "target": 15}
    others = ("3*5=15\x1b", "\U0001f642 3*5=15", "")
    transcribe(run, 40, record(text, info=info), *(record(other, info=info) for other in others), record(text, info={}))
    marked, *plain = Page(build_page([run], marks=countdown_marks(run))).records()
    assert [(marked["c"][start:end], kind) for start, end, kind in marked["h"]] == [
        ("3+5=8, 8*2=16", "failed"),
        ("3*5=14", "error"),
        ("3*5=15", "right"),
    ]
    assert not [one for one in plain if "h" in one]


def test_what_the_task_wrote_in_a_conversation_is_set_apart(run: Path) -> None:
    def messages(*texts: str) -> list[dict[str, str]]:
        return [{"role": ("assistant", "user")[at % 2], "content": text} for at, text in enumerate(texts)]

    transcribe(
        run,
        40,
        record("8\nhigher\n12\nlower\n9", messages=messages("8\n", "higher\n", "12\n", "lower\n", "9")),
        record("8\n", messages=messages("8\n")),
        record("8\nhigher", messages=messages("8\n", "lower\n")),
        record("x", messages=[5, {"role": "user"}]),
    )
    page = Page(build_page([run]))
    spoken, *plain = page.records()
    assert [(spoken["c"][start:end], kind) for start, end, kind in spoken["h"]] == [
        ("higher\n", "task"),
        ("lower\n", "task"),
    ]
    assert not [one for one in plain if "h" in one]


def countdown_marks(run: Path) -> Any:
    """Those of the installed task, whatever task the run names."""
    return {"": load_plugins().task_marks()["countdown"]}


@pytest.mark.parametrize(
    "found", [[(0, 99, "right")], [(2, 1, "right")], [(0, 2, "x")], [(0, 2, "right"), (1, 3, "right")], 5]
)
def test_marks_that_make_no_sense_are_left_out(run: Path, found: Any) -> None:
    transcribe(run, 40, record("abcdef"))
    assert not [one for one in Page(build_page([run], marks={"": lambda info, text: found})).records() if "h" in one]


def test_watching_follows_a_run_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = write_run(tmp_path / "watched", outcome=None)
    metrics = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    versions: list[str] = []

    def sleep(seconds: float) -> None:
        versions.append((run / "report.html").read_text(encoding="utf-8"))
        (run / "metrics.jsonl").write_text("\n".join([*metrics[: 10 * len(versions)], ""]), encoding="utf-8")
        if len(versions) == 3:
            lock.release()

    lock = FileLock(run / ".lock")
    monkeypatch.setattr("time.sleep", sleep)
    with lock:
        call(run, "--watch", "--samples", "0")
    assert [f"<td>{step} of 40</td>" in text for step, text in zip((40, 10, 20), versions, strict=True)] == [True] * 3
    assert all('data-refresh="10"' in text and "<td>running</td>" in text for text in versions)
    last = (run / "report.html").read_text(encoding="utf-8")
    assert 'data-refresh="0"' in last
    assert "<td>30 of 40</td>" in last

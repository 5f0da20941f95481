"""What trackers are sent: names that they accept, samples without secrets, one run across resumes."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from accelerate.utils import ProjectConfiguration
from support.builders import scored

from reasonrl.observability import tracker_kinds
from reasonrl.observability.trackers import Trackers
from reasonrl.observability.transcripts import transcript_records

TOKEN = "hf_" + "abcdefghijklmnopqrstuvwxyz012345"


def test_samples_are_redacted(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[Any] = []
    monkeypatch.setitem(tracker_kinds._SAMPLES, "board", lambda tracker, step, name, rows: sent.extend(rows))
    records = [record | {"completion": f"the key is {TOKEN}"} for record in transcript_records([scored([1.0])])]
    Trackers(BoardAccelerator(), ["board"]).samples(3, "held_out", records)
    assert [row[2] for row in sent] == ["the key is [redacted]"]


@pytest.mark.parametrize(("tracker", "key"), [("mlflow", "eval/a/pass_at_8"), ("wandb", "eval/a/pass@8")])
def test_mlflow_gets_metric_names_that_it_accepts(tracker: str, key: str) -> None:
    calls: list[Mapping[str, float]] = []

    class Accelerator:
        def log(self, values: Mapping[str, float], step: int) -> None:
            calls.append(values)

    Trackers(Accelerator(), [tracker]).log({"eval/a/pass@8": 1.0}, 1)
    assert calls == [{key: 1.0}]


class Board:
    """A tracker that keeps what it gets."""

    name = "board"

    def __init__(self) -> None:
        self.config: list[Mapping[str, Any]] = []
        self.logged: list[int] = []
        self.ended = 0

    def store_init_configuration(self, values: Mapping[str, Any]) -> None:
        self.config.append(values)

    def finish(self) -> None:
        self.ended += 1


class BoardAccelerator:
    def __init__(self) -> None:
        self.board, self.started = Board(), list[tuple[Any, ...]]()
        self.trackers = [self.board]
        self.project_configuration = ProjectConfiguration()

    def init_trackers(self, name: str, config: Any, init_kwargs: Any) -> None:
        self.started.append((name, config, init_kwargs))

    def log(self, values: Mapping[str, float], step: int) -> None:
        self.board.logged.append(step)


def test_a_resumed_run_continues_its_tracker_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[tuple[str, int, Any]] = []
    monkeypatch.setitem(tracker_kinds._SAMPLES, "board", lambda t, step, name, rows: shown.append((name, step, rows)))
    monkeypatch.setitem(tracker_kinds._SUMMARIES, "board", lambda t, step, values: shown.append(("end", step, values)))
    monkeypatch.setitem(tracker_kinds._OPTIONS, "board", lambda session: {"id": session.id, "group": "ours"})
    first, again = BoardAccelerator(), BoardAccelerator()
    completions = [*transcript_records([scored([1.0] * 20)])]
    for accelerator, steps in ((first, (0, 1, 2)), (again, (2, 3))):
        sender = Trackers(accelerator, ["board"], {"board": {"group": "mine"}})
        sender.start("project", tmp_path, {"a": 1})
        for step in steps:
            sender.samples(step, "held_out", completions)
            sender.log({"x": 1.0}, step)
    (name, config, options), (_, later, same) = first.started[0], again.started[0]
    assert (name, config, options["board"]["group"]) == ("project", {"a": 1}, "mine")
    assert (later, same) == (None, options)
    assert (first.board.config, again.board.config) == ([], [{"a": 1}])
    assert (first.board.logged, again.board.logged) == ([0, 1, 2], [3])
    assert [(name, step, len(rows)) for name, step, rows in shown] == [("samples/held_out", n, 16) for n in range(4)]
    figures = {"accuracy": 0.5, "ci95": [0.2, 0.8]}
    sender.close({"outcome": "completed", "steps": 3, "wall_s": 1.0, "eval": {"last": {"suites": {"a": figures}}}})
    assert shown[-1][:2] == ("end", 3)
    assert shown[-1][2]["a/ci95_high"] == 0.8
    assert again.board.ended == 1


def test_a_table_shows_what_a_model_wrote_as_text() -> None:
    table = tracker_kinds.markdown_table(("a", "b"), [["<script>x|y</script>\n**z**", 0.5]])
    assert table.splitlines()[0] == "| a | b |"
    assert table.splitlines()[2] == "| &#60;script&#62;x&#124;y&#60;/script&#62;<br>&#42;&#42;z&#42;&#42; | 0.5 |"


def test_records_that_a_tracker_cannot_show_stop_no_run(caplog: pytest.LogCaptureFixture) -> None:
    broken = Trackers(BoardAccelerator(), ["board"])
    broken.samples(1, "held_out", [{"completion": "without a prompt"}])
    broken.close({"outcome": "failed"})
    summary_only = Trackers(BoardAccelerator(), ["board"])
    summary_only.close({"outcome": "failed"})
    assert caplog.text.count("a tracker failed") == 2

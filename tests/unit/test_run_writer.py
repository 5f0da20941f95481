"""The records of a run: metrics, transcripts, summary, report; and a tracker that fails."""

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from filelock import FileLock
from support.builders import completion, group, output, scored

from reasonrl import RunInfo, ScoredGroup, StepRecord
from reasonrl.analysis.report import page as report_page
from reasonrl.observability.reporter import SilentReporter
from reasonrl.observability.trackers import Trackers
from reasonrl.plugins import load_plugins
from reasonrl.rundir.folder import RunDir
from reasonrl.rundir.jsonl import read_jsonl
from reasonrl.runs.record import RunWriter


class Recorder(SilentReporter):
    def __init__(self) -> None:
        self.steps: list[int] = []
        self.ends: list[str] = []

    def stepped(self, record: StepRecord, total_steps: int, groups: Any) -> None:
        self.steps.append(record.step)

    def finished(self, outcome: str, summary: Mapping[str, object], model_path: Path | None) -> None:
        self.ends.append(outcome)


def open_writer(folder: RunDir | None, reporter: Any = None, **options: Any) -> RunWriter:
    path = folder.path if folder else Path("nowhere")
    return RunWriter(
        run_dir=folder,
        info=RunInfo(name="r", run_dir=path, seed=0, total_steps=3, recipe={}),
        reporter=reporter or Recorder(),
        plugins=load_plugins(environ={"REASONRL_PLUGINS": ""}),
        transcripts_per_step=options.pop("transcripts", 2),
        **options,
    )


def record(step: int, value: float = 1.0) -> StepRecord:
    return StepRecord(step=step, metrics={"train/reward": value}, timing_s={"time/step_s": 0.5})


def open_folder(tmp_path: Path) -> RunDir:
    return RunDir.create(output_dir=tmp_path, name="r")


def test_the_writer_writes_metrics_and_transcripts(tmp_path: Path) -> None:
    reporter = Recorder()
    writer = open_writer(open_folder(tmp_path), reporter)
    writer.transcribe(1, [scored([1.0, 0.0, 0.5])])
    writer.show(record(1), [scored([1.0, 0.0, 0.5])])
    writer.record(record(1), [scored([1.0, 0.0, 0.5])])
    writer.transcribe(2, [])
    writer.show(record(2, float("nan")), [])
    writer.record(record(2, float("nan")), [])
    folder = tmp_path / "r-1"
    assert list(read_jsonl(folder / "metrics.jsonl")) == [
        {"step": 1, "train/reward": 1.0, "time/step_s": 0.5},
        {"step": 2, "train/reward": None, "time/step_s": 0.5},
    ]
    assert len(list(read_jsonl(folder / "transcripts" / "step_000001.jsonl"))) == 2
    assert not (folder / "transcripts" / "step_000002.jsonl").exists()
    summary = writer.finish("completed")
    assert json.loads((folder / "summary.json").read_text()) == summary
    assert (summary["outcome"], summary["steps"]) == ("completed", 2)
    assert summary["eval"] == {"first": {}, "last": {}}
    assert (reporter.steps, reporter.ends) == ([1, 2], ["completed"])


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (None, None),
        (ValueError("two\nlines"), "ValueError: two lines"),
        (RuntimeError(), "RuntimeError"),
        (
            OSError("https://me:hunter2@hub.example/x is away"),
            "OSError: https://[redacted]@hub.example/x is away",
        ),
    ],
)
def test_the_summary_says_what_ended_the_run_and_no_secret(
    tmp_path: Path, error: BaseException | None, said: str | None
) -> None:
    writer = open_writer(open_folder(tmp_path))
    assert writer.finish("failed", error)["error"] == said
    assert json.loads((tmp_path / "r-1" / "summary.json").read_text())["error"] == said


@pytest.mark.parametrize("fault", [None, OSError(28, "No space left on device"), RecursionError("deep")])
def test_a_run_ends_with_a_report_and_never_fails_for_it(
    tmp_path: Path, fault: BaseException | None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    folder, reporter = open_folder(tmp_path), Recorder()
    folder.write_json("run.json", {"reasonrl": "0.1.0", "recipe": {"name": "r"}})
    writer = open_writer(folder, reporter, has_report=True)
    writer.record(record(1), [])
    if fault is not None:
        monkeypatch.setattr(report_page, "build_page", Mock(side_effect=fault))
    assert writer.finish("completed")["outcome"] == "completed"
    assert reporter.ends == ["completed"]
    path = folder.path / "report.html"
    assert path.exists() == (fault is None)
    assert ("cannot write report.html" in caplog.text) == (fault is not None)
    if fault is None:  # the lock is still held, but the run is over
        assert "<td>completed</td>" in path.read_text(encoding="utf-8")


def test_a_redacted_completion_has_no_tokens(tmp_path: Path) -> None:
    """Their lengths are those of the text that the policy wrote."""
    texts = ("hf_" + "abcdefgh" * 4, "12")
    rows = ScoredGroup(group=group([completion((1,), text=text) for text in texts]), rewards=(output(1.0), output(0.0)))
    figures = [{"lengths": [len(text)], "entropy": [1.0]} for text in texts]
    open_writer(open_folder(tmp_path)).transcribe(1, [rows], figures)
    first, second = read_jsonl(tmp_path / "r-1" / "transcripts" / "step_000001.jsonl")
    assert (first["completion"], "tokens" in first) == ("[redacted]", False)
    assert second["tokens"] == {"lengths": [2], "entropy": [1.0]}


def test_other_ranks_write_and_say_nothing(tmp_path: Path) -> None:
    reporter = Recorder()
    writer = open_writer(None, reporter)
    writer.show(record(1), [scored([1.0])])
    writer.record(record(1), [scored([1.0])])
    assert writer.finish("completed")["steps"] == 1
    assert (reporter.steps, reporter.ends) == ([], [])


def test_a_failing_tracker_is_switched_off_and_the_run_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    calls = []

    class Accelerator:
        trackers = ()

        def init_trackers(self, name: str, config: Mapping[str, Any], init_kwargs: Mapping[str, Any]) -> None:
            assert (name, config, init_kwargs) == ("run", {"a.b": 1, "a.c": "[1]"}, {})

        def log(self, values: Mapping[str, float], step: int) -> None:
            calls.append((dict(values), step))
            if step == 2:
                raise ConnectionError("no network")

    trackers = Trackers(Accelerator(), ["board"])
    trackers.start("run", config={"a": {"b": 1, "c": [1]}})
    writer = open_writer(open_folder(tmp_path), trackers=trackers)
    with caplog.at_level(logging.WARNING):
        for step in (1, 2, 3):
            writer.record(record(step), [])
    assert [step for _, step in calls] == [1, 2]
    assert calls[0][0] == {"train/reward": 1.0, "time/step_s": 0.5}
    assert caplog.text.count("a tracker failed") == 1
    assert len(list(read_jsonl(tmp_path / "r-1" / "metrics.jsonl"))) == 3
    writer.finish("completed")


def test_a_reporter_that_breaks_at_the_end_leaves_summary_and_free_folder(tmp_path: Path) -> None:
    class Broken(Recorder):
        def finished(self, *args: Any) -> None:
            raise BrokenPipeError

    writer = open_writer(open_folder(tmp_path), Broken())
    with pytest.raises(BrokenPipeError):
        writer.finish("failed")
    assert json.loads((tmp_path / "r-1" / "summary.json").read_text())["outcome"] == "failed"
    with FileLock(tmp_path / "r-1" / ".lock", timeout=0):
        pass

"""A download is told while a model is loaded, in terminals only."""

from __future__ import annotations

import io
import time
from pathlib import Path

import pytest
from huggingface_hub import constants
from rich.console import Console

from reasonrl.cli import waiting
from reasonrl.cli.waiting import Progress
from reasonrl.observability.reporter import Reporter
from reasonrl.runs import download


class Recorder(Reporter):
    def __init__(self) -> None:
        self.told: list[str] = []

    def progress(self, what: str) -> None:
        self.told.append(what)


def test_what_arrives_in_the_cache_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(download, "EVERY_S", 0.01)
    blobs, reporter = tmp_path / "models--org--name" / "blobs", Recorder()
    blobs.mkdir(parents=True)
    (blobs / "old").write_bytes(b"x" * 5_000_000)
    with download.tell_download("org/name", reporter):
        (blobs / "new.incomplete").write_bytes(b"x" * 3_000_000)
        deadline = time.monotonic() + 10
        while not reporter.told and time.monotonic() < deadline:
            time.sleep(0.01)
    assert reporter.told == ["downloading org/name: 3 MB"]


def test_a_folder_is_not_watched(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "_cache_folder", None)  # would be called
    with download.tell_download(str(tiny_model), Recorder()):
        pass


@pytest.mark.parametrize("is_terminal", [True, False])
def test_progress_is_shown_in_a_terminal_only(is_terminal: bool) -> None:
    out = io.StringIO()
    progress = Progress(Console(file=out, force_terminal=is_terminal, width=80))
    progress.progress("downloading org/name: 3 MB")
    progress.close()
    assert ("downloading org/name: 3 MB" in out.getvalue()) == is_terminal


def test_a_spinner_waits_for_a_slow_operation(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.StringIO()
    monkeypatch.setattr(waiting, "_stderr", lambda: Console(file=out, force_terminal=True, width=80))
    with waiting.open_spinner("reading a run"):
        pass
    assert out.getvalue() == ""
    monkeypatch.setattr(waiting, "DELAY_S", 0.0)
    with waiting.open_spinner("reading a run"):
        deadline = time.monotonic() + 10
        while not out.getvalue() and time.monotonic() < deadline:
            time.sleep(0.01)
    assert "reading a run" in out.getvalue()

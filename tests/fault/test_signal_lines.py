"""A signal at any line that opens or ends a run: the summary says how the run ended."""

from __future__ import annotations

import itertools
import json
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.resume_runs import go, resumable_recipe
from support.signal_lines import signal_at

from reasonrl.runs import assemble, end
from reasonrl.runs import open as opening
from reasonrl.signals import StopRequested, raise_signals

FILES = (assemble.__file__, end.__file__, opening.__file__)
SHORT = ("trainer.steps=1", "evaluation.every=0", "checkpoint.every=0")
STRIDES = (pytest.param(5, marks=pytest.mark.fault), pytest.param(1, marks=pytest.mark.long))


@pytest.fixture(autouse=True)
def _default_handler() -> Iterator[None]:
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGTERM, before)


def stop_at(line: int, recipe: Path | None, run_dir: Path, *overrides: str) -> str:
    """Train or resume with a signal at that line: where it came, or "" if the run has fewer lines."""
    with raise_signals(), signal_at(line, FILES) as sent:
        try:
            go(recipe, run_dir, *overrides)
            expected = {"completed"}
        except StopRequested:
            expected = {"completed", "interrupted"}
    if (run_dir / "run.json").exists():
        summary = run_dir / "summary.json"
        assert summary.exists(), sent
        assert json.loads(summary.read_text())["outcome"] in expected, sent
    else:
        assert not run_dir.exists(), sent
    return sent[0] if sent else ""


@pytest.mark.parametrize("stride", STRIDES)
def test_a_new_run(stride: int, tiny_model: Path, tmp_path: Path) -> None:
    recipe = resumable_recipe(tmp_path, tiny_model)
    for line in itertools.count(0, stride):
        if not stop_at(line, recipe, tmp_path / f"run-{line}", *SHORT):
            break
    assert line > 100


@pytest.mark.parametrize("stride", STRIDES)
def test_a_resumed_run(stride: int, tiny_model: Path, tmp_path: Path) -> None:
    go(resumable_recipe(tmp_path, tiny_model), tmp_path / "begun", *SHORT)
    for line in itertools.count(0, stride):
        run_dir = tmp_path / f"run-{line}"
        shutil.copytree(tmp_path / "begun", run_dir)
        if not stop_at(line, None, run_dir, "trainer.steps=2"):
            break
    assert line > 100

"""Runs that sample ahead and are killed, stopped, or lose their engine: what is saved, and how they are resumed."""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.ahead_runs import OPTIMIZER_STEPS, STEPS, events, sections
from support.processes import child, command_on_ranks
from support.resume_runs import (
    PLUGIN_FILES,
    assert_same_run,
    cut_back,
    go,
    metrics_without_times,
    resumable_recipe,
    run_in_child,
    wait_until,
    whole_run,
)

from reasonrl.errors import RecipeError, RolloutError
from reasonrl.observability.reporter import SilentReporter

LATENCY_S = 0.3


def slow(folder: Path, **changes: Any) -> dict[str, Any]:
    often = {"checkpoint": {"every": 1, "keep": 99}, "evaluation": {"every": 0}}
    return sections(folder, **{"stub": {"latency_s": LATENCY_S}, **often, **changes})


def reached(folder: Path, event: str, count: int) -> Callable[[], bool]:
    """Whether an event has come to pass so often."""
    return lambda: (folder / "journal.0").exists() and len(events(folder, event)) >= count


@pytest.mark.fault
@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize(
    ("event", "count", "pause_s"),
    [
        pytest.param("began", 2, 0.0, id="first-update"),
        pytest.param("began", 4, 0.1, id="sampling"),
        pytest.param("ended", 3, 0.0, id="sampled"),
        pytest.param("stepped", 4, 0.0, id="between-steps"),
        pytest.param("synced", 3, 0.0, id="handing-over"),
    ],
)
def test_a_run_that_is_ended_at_any_point_goes_on_bit_exactly(
    sent: signal.Signals, event: str, count: int, pause_s: float, tiny_model: Path, tmp_path: Path
) -> None:
    whole = whole_run(tmp_path, tiny_model, **slow(tmp_path, stub={}))
    (tmp_path / "journal.0").unlink()
    recipe = resumable_recipe(tmp_path, tiny_model, **slow(tmp_path))
    process = child(run_in_child, recipe, tmp_path / "run")
    wait_until(reached(tmp_path, event, count), process)
    time.sleep(pause_s)
    os.kill(process.pid, sent)
    process.join(30)
    assert process.exitcode == (-9 if sent == signal.SIGKILL else 128 + sent)
    go(None, tmp_path / "run", "rollout_backend.latency_s=0")
    assert_same_steps(whole, tmp_path / "run")


def assert_same_steps(one: Path, other: Path) -> None:
    """All but the recipe, whose engine is slower."""
    assert metrics_without_times(one) == metrics_without_times(other)
    last = f"checkpoints/step_{STEPS:06d}"
    for name in ("model.safetensors", "optimizer.safetensors"):
        assert (one / last / name).read_bytes() == (other / last / name).read_bytes()
    for path in one.glob("transcripts/*.jsonl"):
        assert path.read_bytes() == (other / path.relative_to(one)).read_bytes()


@pytest.mark.fault
def test_an_engine_that_goes_away_while_it_samples_ahead_costs_that_round(
    tiny_model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The finished step is saved; the lost round is sampled again, by newer weights, and that is said."""
    gone = tmp_path / "gone"
    options = sections(tmp_path, stub={"gone_while": str(gone)}, evaluation={"every": 0}, checkpoint={"every": 0})

    class Watch(SilentReporter):
        def stepped(self, record: Any, total_steps: int, groups: Any) -> None:
            if record.step == 2:
                gone.touch()

    recipe = resumable_recipe(tmp_path, tiny_model, **options)
    with pytest.raises(RolloutError, match="the stub has gone"), caplog.at_level(logging.WARNING):
        go(recipe, tmp_path / "run", reporter=Watch())
    saved = max(path.name for path in (tmp_path / "run" / "checkpoints").glob("step_*"))
    step = int(saved.removeprefix("step_"))
    assert step in (2, 3)
    assert f"the prompts of step {step + 1} that were being sampled are lost (RolloutError: the stub" in caplog.text
    assert f"with the weights of step {step}, so the results will not be bit-exact" in caplog.text
    gone.unlink()
    go(None, tmp_path / "run")
    metrics = metrics_without_times(tmp_path / "run")
    stale = [0, *[OPTIMIZER_STEPS] * (step - 1), 0, *[OPTIMIZER_STEPS] * (STEPS - step - 1)]
    assert [line["rollout/staleness_max"] for line in metrics] == stale


def test_groups_that_were_sampled_ahead_are_not_carried(tiny_model: Path, tmp_path: Path) -> None:
    options = sections(tmp_path, algorithm={"name": "picky"})
    with pytest.raises(RecipeError) as refused:
        go(resumable_recipe(tmp_path, tiny_model, **options), tmp_path / "run")
    assert str(refused.value) == (
        "trainer.carry_groups must be false with trainer.max_staleness=1: picky keeps surplus groups for the next "
        "step, which would then be two steps stale"
    )
    assert not (tmp_path / "run").exists()


@pytest.mark.fault
def test_a_run_may_stop_and_begin_to_sample_ahead_when_it_is_resumed(tiny_model: Path, tmp_path: Path) -> None:
    """What was sampled ahead is used; without it a step begins with fresh samples."""
    run = whole_run(tmp_path, tiny_model, **sections(tmp_path, evaluation={"every": 0}))
    stops = cut_back(run, tmp_path / "stops", 2)
    go(None, stops, "trainer.max_staleness=0")
    lines = metrics_without_times(stops)
    assert [line.get("rollout/staleness_max") for line in lines] == [0, OPTIMIZER_STEPS, None, None, None]
    assert lines[2]["policy/kl_stale_k3"] > 0
    assert "policy/kl_stale_k3" not in lines[3]
    begins = cut_back(stops, tmp_path / "begins", 4)
    go(None, begins, "trainer.max_staleness=1", "trainer.steps=6")
    lines = metrics_without_times(begins)
    assert [line.get("rollout/staleness_max") for line in lines[3:]] == [None, 0, OPTIMIZER_STEPS]


@pytest.mark.slow
def test_two_processes_sample_ahead_and_resume_exactly(tiny_model: Path, tmp_path: Path) -> None:
    recipe = resumable_recipe(tmp_path, tiny_model, **slow(tmp_path, stub={"latency_s": 0.05}))
    plugins = [f"--plugin={file}" for file in PLUGIN_FILES]
    run = tmp_path / "run"
    done = command_on_ranks(2, "train", recipe, "--run-dir", run, *plugins)
    assert done.returncode == 0, done.stdout + done.stderr
    for rank in (0, 1):
        asked = [line["problems"] for line in events(tmp_path, "began", rank=rank)]
        assert [len(problems) for problems in asked] == [2] * STEPS
    again = cut_back(run, tmp_path / "again", 3)
    pending = (again / "checkpoints" / "step_000003" / "pending.jsonl").read_text()
    assert [f"numbers/train/{n}" in pending for n in (11, 12, 13, 14, 15, 16)] == [False, *[True] * 4, False]
    done = command_on_ranks(2, "resume", again, *plugins)
    assert done.returncode == 0, done.stdout + done.stderr
    assert_same_run(run, again)
    alone = cut_back(run, tmp_path / "alone", 3)
    go(None, alone)
    one, two = (metrics_without_times(path)[3]["train/reward"] for path in (run, alone))
    assert one == pytest.approx(two), "the round of both processes is trained on by one"

"""A run on two machines, which are network namespaces: it trains, loses one, ends in one line, and resumes exactly."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.machines import Machine, finish, obstacle, two_machines
from support.resume_runs import SCRIPTED, assert_same_run, resumable_recipe

pytestmark = pytest.mark.fault
LIMIT_S = 20
SHARDED = "model.sharding=fsdp"


@pytest.fixture(scope="module")
def allowed() -> None:
    if reason := obstacle():
        pytest.skip(f"two machines: network namespaces are not allowed here ({reason})")


@pytest.fixture
def machines(allowed: None) -> Iterator[tuple[Machine, Machine]]:
    with two_machines() as both:
        yield both


def small_recipe(folder: Path, model: Path) -> Path:
    """Of 12 steps, each saved: where the kill hits cannot be chosen."""
    sections: dict[str, Any] = {
        "trainer": {"steps": 12, "prompts_per_step": 4, "minibatches": 2},
        "evaluation": {"every": 4, "suites": {"held_out": {"problems": 2}}},
        "checkpoint": {"every": 1, "keep": 2},
    }
    return resumable_recipe(folder, model, **sections)


def errors(output: str) -> list[str]:
    """What reasonrl itself reports; torch's launcher adds its own report of the processes."""
    return [line for line in output.splitlines() if line.startswith("error: ")]


def wait_for_steps(run: Path, count: int) -> None:
    until = time.monotonic() + 300
    while not (run / "metrics.jsonl").exists() or (run / "metrics.jsonl").read_text().count("\n") < count:
        assert time.monotonic() < until, "the run takes too long"
        time.sleep(0.01)


@pytest.mark.parametrize("how", [(), (SHARDED,)], ids=["whole", "sharded"])
def test_a_machine_that_is_lost_ends_the_other_and_both_resume(
    how: tuple[str, ...], machines: tuple[Machine, Machine], tiny_model: Path, tmp_path: Path
) -> None:
    _, two = machines
    words = ("train", small_recipe(tmp_path, tiny_model), f"--plugin={SCRIPTED}", *how, "--run-dir")
    whole, run = tmp_path / "whole", tmp_path / "run"
    ends = finish(*(machine.torchrun(*words, whole) for machine in machines))
    assert [code for code, _ in ends] == [0, 0], ends
    manifest = json.loads((whole / "run.json").read_text())
    assert manifest["machine"]["processes"] == 2
    assert manifest["machine"]["sharding"] == ("fsdp" if how else "none")

    processes = [machine.torchrun(*words, run) for machine in machines]
    wait_for_steps(run, 3)
    two.kill()
    killed = time.monotonic()
    (code, output), (killed_code, _) = finish(*processes)
    assert time.monotonic() - killed < 100  # the limit is an hour: a closed connection is noticed at once
    assert (code, killed_code) == (1, -9), output
    (line,) = errors(output)
    assert "lost the connection to another process of this run" in line
    assert f"to continue: reasonrl resume {run}" in line
    assert "reasonrl/cli/app.py" not in output, "a traceback"

    ends = finish(*(machine.torchrun("resume", run, f"--plugin={SCRIPTED}") for machine in machines))
    assert [code for code, _ in ends] == [0, 0], ends
    assert_same_run(whole, run)


def test_a_cable_that_is_cut_ends_both_within_the_limit(
    machines: tuple[Machine, Machine], tiny_model: Path, tmp_path: Path
) -> None:
    """Nothing tells the other end."""
    run = tmp_path / "run"
    for machine in machines:
        machine.environ = {"REASONRL_PROCESS_TIMEOUT_S": str(LIMIT_S)}
    words = ("train", small_recipe(tmp_path, tiny_model), f"--plugin={SCRIPTED}", "--run-dir", run)
    processes = [machine.torchrun(*words, "trainer.steps=2000") for machine in machines]
    wait_for_steps(run, 3)
    machines[1].unplug()
    cut = time.monotonic()
    (code, output), (other, _) = finish(*processes)
    assert time.monotonic() - cut < 4 * LIMIT_S
    assert (code, other) == (1, 1)
    (line,) = errors(output)
    assert f"no answer from another process of this run within {LIMIT_S} s" in line
    assert "saved: step_" in line


def test_accelerate_starts_one_run_on_both_machines(
    machines: tuple[Machine, Machine], tiny_model: Path, tmp_path: Path
) -> None:
    words = ("train", small_recipe(tmp_path, tiny_model), f"--plugin={SCRIPTED}", "trainer.steps=2")
    ends = finish(*(machine.accelerate(*words) for machine in machines))
    assert [code for code, _ in ends] == [0, 0], ends
    (run,) = (tmp_path / "runs").iterdir()
    assert json.loads((run / "run.json").read_text())["machine"]["processes"] == 2
    assert "completed after 2 steps" in ends[0][1]
    assert "completed" not in ends[1][1]


@pytest.mark.parametrize("command", ["train", "resume"])
def test_machines_without_a_shared_disk_are_told_so(
    command: str, machines: tuple[Machine, Machine], tiny_model: Path, tmp_path: Path
) -> None:
    path, runs = small_recipe(tmp_path, tiny_model), tmp_path / "runs"
    runs.mkdir()
    words: tuple[object, ...] = ("train", path, f"--plugin={SCRIPTED}", "trainer.steps=1", "--run-dir", runs / "run")
    if command == "resume":
        ends = finish(*(machine.torchrun(*words) for machine in machines))
        assert [code for code, _ in ends] == [0, 0], ends
        words = ("resume", runs / "run", "trainer.steps=2", f"--plugin={SCRIPTED}")
    before = sorted(runs.rglob("*"))
    machines[1].own = runs
    ends = finish(*(machine.torchrun(*words) for machine in machines))
    assert [code for code, _ in ends] == [1, 1]
    (line,) = errors(ends[0][1])
    said = "process 1 (node-1): " if command == "resume" else f"{runs} of process 0 is not the folder that process 1"
    assert said in line
    assert errors(ends[1][1]) == []
    assert sorted(runs.rglob("*")) == before

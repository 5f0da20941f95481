"""Whatever ends a run, in whichever call: one line, the last finished step saved, and an exact continuation."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from support.resume_runs import assert_same_run, resumable_recipe
from support.small_recipes import summary_of
from support.traps_plugin import TRAP
from typer.testing import CliRunner, Result

import reasonrl.trainer.evaluator as evaluator
import reasonrl.trainer.loop as loop
from reasonrl.cli.app import app
from reasonrl.rewards.runner import RewardRunner
from reasonrl.runs.record import RunWriter

PLUGIN = "support.traps_plugin"
SECTIONS: dict[str, Any] = {
    "algorithm": {"name": "trap"},
    "critic": None,
    "rollout_backend": {"name": "script"},
    "trainer": {"steps": 4, "prompts_per_step": 4, "minibatches": 2},
    "evaluation": {"every": 2, "suites": {"held_out": {"problems": 2}}},
    "checkpoint": {"every": 0, "keep": 9},
}
# Site -> (the call that fails, in step 3 but for evaluations; the step that is saved). Step 0 calls 32 prompts first.
CALLS = {
    "problem/train": (32 + 9, 2),
    "problem/eval": (2 + 4, 2),
    "generate": (5, 2),
    "sync_weights": (3, 2),
    "keep": (9, 2),
    "compute_advantages": (3, 2),
    "compute_loss": (5, 2),
    "counts": (5, 2),
    "backward": (5, 2),
    "after_step": (3, 2),
    "state_dict": (3, 1),  # at the end of step 2, which is then not known to be whole
    "rewards": (5, 2),
    "collate": (3, 2),
    "summarize": (2, 2),
    "transcribe": (3, 3),
    "show": (3, 3),
    "optimizer": (5, 2),
}
PLUGIN_SITES = {
    "generate",
    "sync_weights",
    "problem/train",
    "problem/eval",
    "keep",
    "compute_advantages",
    "compute_loss",
    "counts",
    "after_step",
    "state_dict",
}
ERRORS = [
    "key",
    "memory",
    "gpu memory",
    "cpu memory",
    "exit",
    "unprintable",
    "torch",
    "disk",
    "recipe",
    "canceled",
    "interrupt",
]
# A step whose update is under way has changed the tensors.
UNFINISHED = {"after_step": 2, "state_dict": 2, "optimizer": 1}


def run_cli(*arguments: object) -> Result:
    return CliRunner().invoke(app, [*map(str, arguments), "--plugin", PLUGIN])


@pytest.fixture(scope="module")
def whole(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run without a fault."""
    folder = tmp_path_factory.mktemp("whole")
    recipe = resumable_recipe(folder, tiny_model, **SECTIONS)
    done = run_cli("train", recipe, "--run-dir", folder / "run")
    assert done.exit_code == 0, done.output
    return folder


@pytest.fixture
def trapped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls of the core that no plugin is asked in."""

    def trap(owner: Any, name: str, site: str) -> None:
        real = getattr(owner, name)

        def wrapper(*args: Any, **options: Any) -> Any:
            TRAP.reached(site)
            return real(*args, **options)

        monkeypatch.setattr(owner, name, wrapper)

    trap(RewardRunner, "score_all", "rewards")
    trap(loop, "collate", "collate")
    trap(evaluator, "summarize", "summarize")
    trap(RunWriter, "transcribe", "transcribe")
    trap(RunWriter, "show", "show")
    trap(torch.optim.AdamW, "step", "optimizer")


def expected_code(site: str, error: str) -> int:
    if error == "interrupt":
        return 130
    breaks_contract = site in PLUGIN_SITES and error not in ("memory", "gpu memory", "cpu memory")
    return 2 if error == "recipe" or breaks_contract else 1


def fail(folder: Path, whole: Path, site: str, error: str) -> tuple[Path, Result]:
    call, _ = CALLS[site]
    TRAP.set(folder / "armed", site, error, call)
    done = run_cli("train", whole / "broken.yaml", "--run-dir", folder / "run")
    (folder / "armed").unlink()
    return folder / "run", done


def check_end(run: Path, done: Result, site: str, error: str) -> None:
    assert done.exit_code == expected_code(site, error), done.output
    assert "Traceback" not in done.output
    lines = [line for line in done.output.splitlines() if line.startswith("error: ")]
    summary = summary_of(run)
    if error == "interrupt":
        assert (lines, summary["outcome"]) == ([], "interrupted")
    else:
        assert summary["outcome"] == "failed"
        assert len(lines) == 1, done.output
        check_line(run, lines[0], site, error)
    saved = f"step_{CALLS[site][1]:06d}"
    assert [p.name for p in (run / "checkpoints").iterdir()] == [saved]


def check_line(run: Path, line: str, site: str, error: str) -> None:
    if site in PLUGIN_SITES and error != "recipe":
        assert owner(site) in line
        assert site.partition("/")[0] in line
    if error == "recipe":
        assert not (run / "traceback.txt").exists()
        return
    assert str(run / "traceback.txt") in line
    assert "Traceback (most recent call last)" in (run / "traceback.txt").read_text()
    assert f"saved: step_{CALLS[site][1]:06d}" in line
    assert f"reasonrl resume {run}" in line
    if "memory" in error:
        assert "out of memory " in line
        assert "GiB are free now; " in line


def owner(site: str) -> str:
    if site in ("generate", "sync_weights", "enter", "exit"):
        return "rollout_backend 'script' (plugin support.traps_plugin"
    if site.partition("/")[0] in ("problem", "size", "data_summary", "behaviors", "task", "problem_from_fields"):
        return "task 'numbers'"
    return "algorithm 'trap' (plugin support.traps_plugin"


def check_continuation(whole: Path, run: Path, site: str) -> None:
    saved = CALLS[site][1]
    state = json.loads((run / "checkpoints" / f"step_{saved:06d}" / "trainer_state.json").read_text())
    assert state["unfinished"] == UNFINISHED.get(site, 0)
    done = run_cli("resume", run)
    assert done.exit_code == 0, done.output
    assert not (run / "traceback.txt").exists()
    if site in UNFINISHED:
        assert summary_of(run)["steps"] == 4
        return
    shutil.rmtree(run / "checkpoints" / f"step_{saved:06d}")  # the unbroken run has none
    if site == "transcribe":  # what could not be written is all that is lost
        lost = Path("transcripts", "step_000003.jsonl")
        shutil.copy(whole / "run" / lost, run / lost)
    assert_same_run(whole / "run", run)


@pytest.mark.slow
@pytest.mark.parametrize("site", list(CALLS))
def test_an_error_in_every_call(site: str, whole: Path, trapped: None, tmp_path: Path) -> None:
    run, done = fail(tmp_path, whole, site, "key")
    check_end(run, done, site, "key")
    check_continuation(whole, run, site)


@pytest.mark.parametrize("error", [error for error in ERRORS if error != "key"])
@pytest.mark.parametrize("site", ["compute_loss", pytest.param("collate", marks=pytest.mark.slow)])
def test_every_error(site: str, error: str, whole: Path, trapped: None, tmp_path: Path) -> None:
    run, done = fail(tmp_path, whole, site, error)
    check_end(run, done, site, error)


PAIRS = [
    pytest.param(site, error, marks=[pytest.mark.fault] if (row + column) % 8 == 0 else [pytest.mark.long])
    for row, site in enumerate(CALLS)
    for column, error in enumerate(ERRORS)
]
"""Each site meets one of the errors or two in the tier ``fault``, each error two sites; all pairs in ``long``."""


@pytest.mark.parametrize(("site", "error"), PAIRS)
def test_every_error_in_every_call(site: str, error: str, whole: Path, trapped: None, tmp_path: Path) -> None:
    run, done = fail(tmp_path, whole, site, error)
    check_end(run, done, site, error)
    check_continuation(whole, run, site)


# Before the first step, or after the last: site -> (what the line calls it, the step that is saved).
AROUND = {
    "needs": ("needs", None),
    "task": ("its factory", None),
    "size/train": ("size('train')", None),
    "size/eval": ("size('eval')", None),
    "data_summary": ("data_summary()", None),
    "algorithm": ("its factory", None),
    "enter": ("__enter__", None),
    "exit": ("__exit__", 4),
}


@pytest.mark.parametrize("site", list(AROUND))
def test_an_error_around_the_steps(site: str, whole: Path, tmp_path: Path) -> None:
    call, saved = AROUND[site]
    TRAP.set(tmp_path / "armed", site, "key", 1)
    run = tmp_path / "run"
    done = run_cli("train", whole / "broken.yaml", "--run-dir", run)
    (tmp_path / "armed").unlink()
    lines = [line for line in done.output.splitlines() if line.startswith("error: ")]
    assert (done.exit_code, len(lines), "Traceback" in done.output) == (2, 1, False), done.output
    assert owner(site) in lines[0]
    assert f"{call} raised KeyError: 'lost'" in lines[0]
    assert [p.name for p in run.glob("checkpoints/*")] == ([f"step_{saved:06d}"] if saved else [])


# What a run must not depend on: site -> what the log says of it.
REPORTED = {
    "run_started": "raised in reasonrl_run_started",
    "step_finished": "raised in reasonrl_step_finished",
    "run_finished": "raised in reasonrl_run_finished",
    "behaviors": "task 'numbers': behaviors failed",
    "score": "reward 'parity' raised",
}


@pytest.mark.parametrize("site", list(REPORTED))
def test_an_error_that_ends_no_run(site: str, whole: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    TRAP.set(tmp_path / "armed", site, "key", 1)
    done = run_cli("train", whole / "broken.yaml", "--run-dir", tmp_path / "run")
    assert done.exit_code == 0, done.output
    assert summary_of(tmp_path / "run")["outcome"] == "completed"
    assert caplog.text.count(REPORTED[site]) == 1


def test_an_error_while_resuming(whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole / "run", tmp_path / "run")
    TRAP.set(tmp_path / "armed", "load_state_dict", "key", 1)
    done = run_cli("resume", tmp_path / "run", "trainer.steps=5")
    assert (done.exit_code, "Traceback" in done.output) == (2, False), done.output
    assert owner("load_state_dict") in done.output
    assert "load_state_dict raised KeyError: 'lost'" in done.output


def test_an_error_in_a_problem_from_the_command_line(whole: Path, tmp_path: Path) -> None:
    TRAP.set(tmp_path / "armed", "problem_from_fields", "key", 1)
    done = run_cli("generate", whole / "run", "--n", "3")
    assert (done.exit_code, "Traceback" in done.output) == (2, False), done.output
    assert "task 'numbers': problem_from_fields raised KeyError: 'lost'" in done.output


# Lack of memory: stage -> (the call that fails, the start of the line, the override that it offers).
SHORT = {
    "sampling": (("generate", 5), "out of memory while sampling: asked for 2.00 GiB, ", ""),
    "update": (
        ("compute_loss", 5),
        "out of memory in the update: asked for 2.00 GiB, ",
        "trainer.max_tokens_per_microbatch=8192",
    ),
    "backward": (
        ("backward", 5),
        "out of memory in the update: asked for 2.00 GiB, ",
        "trainer.max_tokens_per_microbatch=8192",
    ),
    "allocation": (
        ("compute_loss", 5),
        "out of memory in the update: asked for 4194304.00 GiB, ",
        "trainer.max_tokens_per_microbatch=8192",
    ),
    "optimizer": (("optimizer", 5), "out of memory in the optimizer's step: asked for 2.00 GiB, ", ""),
    "evaluation": (("summarize", 2), "out of memory while sampling for an evaluation: asked for 2.00 GiB, ", ""),
}


@pytest.mark.slow
@pytest.mark.parametrize("stage", SHORT)
def test_lack_of_memory_says_where_and_what_to_change(stage: str, whole: Path, trapped: None, tmp_path: Path) -> None:
    (site, call), start, override = SHORT[stage]
    TRAP.set(tmp_path / "armed", site, stage if stage == "allocation" else "gpu memory", call)
    run = tmp_path / "run"
    done = run_cli("train", whole / "broken.yaml", "--run-dir", run)
    (tmp_path / "armed").unlink()
    (line,) = [line for line in done.output.splitlines() if line.startswith("error: ")]
    assert done.exit_code == 1
    assert line.startswith(f"error: {start}")
    assert "saved: step_000002; " in line
    assert f"; to continue: reasonrl resume {' '.join(filter(None, [str(run), override]))}; " in line
    if override:
        done = run_cli("resume", run, override)
        assert (done.exit_code, summary_of(run)["steps"]) == (0, 4), done.output


@pytest.mark.parametrize("site", ["load", "sample"])
def test_lack_of_memory_outside_of_a_run_is_one_line(
    site: str, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    if site == "load":
        monkeypatch.setattr("reasonrl.runs.build.load_model", fail)
        done = run_cli("train", whole / "broken.yaml", "--run-dir", tmp_path / "run")
        said = "while loading the model: asked for 2.00 GiB, "
        assert not (tmp_path / "run").exists()
    else:
        monkeypatch.setattr("reasonrl.runs.ask.evaluate_suites", fail)
        done = run_cli("eval", whole / "run")
        said = "while sampling for an evaluation: asked for 2.00 GiB, "
    assert (done.exit_code, "Traceback" in done.output) == (1, False), done.output
    assert f"error: out of memory {said}" in done.output

"""What goes wrong in a run is counted, shown, survived if it may be, and never hidden."""

from __future__ import annotations

import errno
import json
import logging
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, GeneralTracker
from filelock import FileLock
from support.faults_plugin import Sabotage, SabotageConfig
from support.scripted import Case, Outcome, run_update, scripted_groups, tiny_policy
from support.small_recipes import PLUGIN, cli, recipe, summary_of
from support.tiny_runs import metrics_of

from reasonrl import Needs
from reasonrl.model.policy import PolicyModule
from reasonrl.observability.reporter import SilentReporter
from reasonrl.rundir import files
from reasonrl.runs.start import train as train_recipe


@dataclass(frozen=True)
class Sabotaged(Case):
    """Scripted updates of an algorithm that goes wrong by a pattern."""

    pattern: list[str] = field(default_factory=list)

    @property
    def needs(self) -> Needs:
        return Needs()

    def algorithm(self, group_size: int) -> Any:
        return Sabotage(SabotageConfig(pattern=self.pattern))


def sabotaged(*pattern: str) -> Sabotaged:
    return Sabotaged("sabotage", None, list(pattern))


def parameters(policy: PolicyModule) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in policy.named_parameters()}


def update(case: Sabotaged, policy: PolicyModule, groups: slice = slice(None), **options: Any) -> Outcome:
    scripted = scripted_groups(4, 2, unscored=False)[groups]
    return run_update(case, policy, scripted, group_size=2, **options)


BAD = ["nan", "inf_loss", "bad_grad"]


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_update_changes_no_bit(kind: str) -> None:
    policy = tiny_policy(sabotaged())
    before = parameters(policy)
    outcome = update(sabotaged(kind), policy)
    assert all(torch.equal(before[name], value) for name, value in outcome.parameters.items())
    assert (outcome.output.num_skipped, outcome.output.policy_version) == (1, 0)
    assert not {"optim/grad_norm"} & outcome.metrics.keys()
    good = update(sabotaged("ok"), policy)
    assert good.output.num_skipped == 0
    assert any(not torch.equal(before[name], value) for name, value in good.parameters.items())


@pytest.mark.parametrize("bad_comes_first", [False, True])
@pytest.mark.parametrize("kind", BAD)
def test_one_bad_minibatch_of_two_leaves_the_other(kind: str, bad_comes_first: bool) -> None:
    pattern = [kind, "ok"] if bad_comes_first else ["ok", kind]
    both = update(sabotaged(*pattern), tiny_policy(sabotaged()), minibatches=2)
    half = slice(2, 4) if bad_comes_first else slice(0, 2)
    alone = update(sabotaged("ok"), tiny_policy(sabotaged()), half)
    for name, value in alone.parameters.items():
        torch.testing.assert_close(both.parameters[name], value, rtol=0, atol=1e-12)
    assert (both.output.num_skipped, both.output.policy_version) == (1, 1)
    assert both.metrics["optim/grad_norm"] == pytest.approx(alone.metrics["optim/grad_norm"])
    if kind != "bad_grad":
        assert both.metrics["loss/total"] == pytest.approx(alone.metrics["loss/total"])


@pytest.mark.parametrize("max_tokens", [1, 10_000])
def test_one_bad_micro_batch_spoils_its_optimizer_step_alone(max_tokens: int) -> None:
    policy = tiny_policy(sabotaged())
    before = parameters(policy)
    outcome = update(sabotaged("nan", "ok", "ok"), policy, max_tokens=max_tokens)
    assert outcome.output.num_skipped == 1
    assert all(torch.equal(before[name], value) for name, value in outcome.parameters.items())


def test_three_bad_updates_in_a_row_end_the_update_with_the_last_good_parameters() -> None:
    policy = tiny_policy(sabotaged())
    before = parameters(policy)
    outcome = update(sabotaged("nan", "inf_loss", "bad_grad"), policy, update_epochs=9)
    assert (outcome.output.num_skipped, outcome.output.num_consecutive_skips) == (3, 3)
    after = parameters(policy)
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_good_update_in_between_starts_the_count_anew() -> None:
    outcome = update(sabotaged("nan", "nan", "ok", "nan", "nan"), tiny_policy(sabotaged()), update_epochs=5)
    assert (outcome.output.num_skipped, outcome.output.policy_version) == (4, 1)


def train(tmp_path: Path, model: Path, *overrides: str, code: int, **sections: Any) -> Any:
    done = cli("train", recipe(tmp_path, model, **sections), *overrides, "--run-dir", tmp_path / "run")
    assert done.exit_code == code, done.output
    return done


def lock_is_free(run_dir: Path) -> bool:
    lock = FileLock(run_dir / ".lock")
    lock.acquire(timeout=0)
    lock.release()
    return True


def test_a_run_with_skipped_updates_counts_and_shows_them(tiny_model: Path, tmp_path: Path) -> None:
    algorithm = {"name": "sabotage", "pattern": ["ok", "nan", "ok", "ok"]}
    done = train(tmp_path, tiny_model, "trainer.minibatches=2", algorithm=algorithm, code=0)
    lines = metrics_of(tmp_path / "run")
    assert [line["optim/skipped_updates"] for line in lines] == [1.0, 0.0]
    assert [line["policy/version"] for line in lines] == [1.0, 3.0]
    assert lines[0]["loss/total"] is not None
    assert lines[0]["optim/grad_norm"] > 0
    assert done.output.count("[1 non-finite updates skipped]") == 1
    assert summary_of(tmp_path / "run")["outcome"] == "completed"


def test_three_bad_updates_end_a_run_with_one_line(tiny_model: Path, tmp_path: Path) -> None:
    algorithm = {"name": "sabotage", "pattern": ["nan"] * 9}
    done = train(tmp_path, tiny_model, "trainer.steps=9", algorithm=algorithm, code=1)
    summary = summary_of(tmp_path / "run")
    assert (summary["outcome"], summary["steps"]) == ("failed", 3)
    assert [p.name for p in (tmp_path / "run" / "checkpoints").iterdir()] == ["step_000003"]
    errors = [line for line in done.output.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert "3 updates in a row" in errors[0]
    assert "Traceback" not in done.output
    assert lock_is_free(tmp_path / "run")


def test_a_reward_that_fails_now_and_then_is_survived_and_counted(
    tiny_model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, logger="reasonrl"):
        done = train(tmp_path, tiny_model, rewards={"flaky": {"fail_every": 8}}, code=0)
    assert [line["train/unscored_frac"] for line in metrics_of(tmp_path / "run")] == [0.125, 0.125]
    assert done.output.count("[12.5% unscored]") == 2
    assert summary_of(tmp_path / "run")["outcome"] == "completed"
    # Nothing but the training's reward got as far as its eighth completion.
    assert caplog.text.count("ZeroDivisionError: the reward's own bug") == 1


@pytest.mark.parametrize(("fail_every", "code"), [(5, 0), (4, 1), (1, 1)])
def test_too_many_unscored_completions_stop_the_run(
    fail_every: int, code: int, tiny_model: Path, tmp_path: Path
) -> None:
    """Of 32 completions every fifth is 6, below 20%; every fourth is 8, above."""
    done = train(tmp_path, tiny_model, "trainer.steps=1", rewards={"flaky": {"fail_every": fail_every}}, code=code)
    outcome = summary_of(tmp_path / "run")["outcome"]
    if code == 0:
        assert outcome == "completed"
        return
    assert outcome == "failed"
    errors = [line for line in done.output.splitlines() if line.startswith("error: ")]
    assert errors == [
        f"error: {1 / fail_every:.0%} of the batch could not be scored, over the limit of 20%; reward 'flaky' gave no "
        f"score for {32 // fail_every} of 32 completions (raised ZeroDivisionError), since step 1; "
        "a reward that is changed needs a new run"
    ]
    assert lock_is_free(tmp_path / "run")


def test_ctrl_c_leaves_a_truthful_summary_and_a_free_folder(tiny_model: Path, tmp_path: Path) -> None:
    done = train(tmp_path, tiny_model, "trainer.steps=5", rewards={"flaky": {"interrupt_at": 40}}, code=130)
    summary = summary_of(tmp_path / "run")
    assert (summary["outcome"], summary["steps"]) == ("interrupted", 1)
    assert summary["eval"]["first"]["step"] == 0
    assert "interrupted" in done.output
    assert len(metrics_of(tmp_path / "run")) == 1
    assert lock_is_free(tmp_path / "run")


def test_a_backend_that_does_not_start_leaves_a_summary_and_a_free_folder(tiny_model: Path, tmp_path: Path) -> None:
    done = train(tmp_path, tiny_model, rollout_backend={"name": "deaf"}, code=1)
    assert "error: the backend's server does not answer; start it first" in done.output
    assert summary_of(tmp_path / "run")["outcome"] == "failed"
    assert lock_is_free(tmp_path / "run")


class Board(GeneralTracker):
    """A tracker that keeps files, as tensorboard does."""

    name = "board"
    requires_logging_directory = True

    def __init__(self, run_name: str, logging_dir: str) -> None:
        super().__init__()
        self.folder = Path(logging_dir) / run_name

    @property
    def tracker(self) -> Path:
        return self.folder

    def start(self) -> None:
        self.folder.mkdir(parents=True)

    def store_init_configuration(self, values: dict[str, Any]) -> None:
        (self.folder / "config").write_text(json.dumps(values))

    def log(self, values: dict[str, float], step: int | None, **options: Any) -> None:
        assert not (self.folder / f"{step}.txt").exists(), "one call a step"
        (self.folder / f"{step}.txt").write_text(json.dumps(values))

    def finish(self) -> None:
        (self.folder / "finished").touch()


def test_a_tracker_writes_into_the_folder_of_its_run(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(LOGGER_TYPE_TO_CLASS, "board", Board)
    sections = {"evaluation": {"every": 0, "suites": {"held_out": {"problems": 3}}}}
    train(tmp_path, tiny_model, logging={"trackers": ["board"]}, code=0, **sections)
    folder = tmp_path / "run" / "trackers" / "faulty"
    assert {p.name for p in folder.iterdir()} == {"config", "0.txt", "1.txt", "2.txt", "finished"}
    steps = [json.loads((folder / f"{step}.txt").read_text()) for step in range(3)]
    assert ["eval/held_out/accuracy" in values for values in steps] == [True, False, True]
    assert ["train/reward" in values for values in steps] == [False, True, True]
    first = summary_of(tmp_path / "run")["eval"]["first"]["accuracy"]
    assert steps[0]["eval/held_out/accuracy"] == first
    config = json.loads((folder / "config").read_text())
    assert (config["trainer.steps"], config["algorithm.name"], config["model.lora"]) == (
        2,
        "sabotage",
        "null",
    )
    assert config["evaluation.suites.held_out.problems"] == 3
    assert all(isinstance(value, bool | int | float | str) for value in config.values())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["faulty.yaml", "run"]


class Mute(SilentReporter):
    """A reporter that breaks when the run is announced."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def planned(self, plan: object) -> None:
        raise self.error


@pytest.mark.parametrize(("error", "outcome"), [(BrokenPipeError(), "failed"), (KeyboardInterrupt(), "interrupted")])
def test_a_start_that_fails_leaves_a_summary_and_a_free_folder(
    error: BaseException, outcome: str, tiny_model: Path, tmp_path: Path
) -> None:
    with pytest.raises(type(error)):
        train_recipe(
            recipe(tmp_path, tiny_model),
            run_dir=tmp_path / "run",
            plugin_files=[PLUGIN],
            reporter=Mute(error),
        )
    assert (summary_of(tmp_path / "run")["outcome"], summary_of(tmp_path / "run")["steps"]) == (outcome, 0)
    assert lock_is_free(tmp_path / "run")


@pytest.mark.parametrize("name", ["recipe.yaml", "run.json"])
def test_a_start_that_fails_before_its_records_leaves_nothing(
    name: str, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half a run folder could neither be resumed nor started again."""
    write = files.write_atomic

    def fills_up(path: Path, text: str) -> None:
        if path.name == name:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        write(path, text)

    path = recipe(tmp_path, tiny_model)
    with monkeypatch.context() as patch:
        patch.setattr(files, "write_atomic", fills_up)
        failed = cli("train", path, "--run-dir", tmp_path / "run")
    assert failed.exit_code == 1
    assert f"run/{name}: No space left on device" in failed.stderr
    assert not (tmp_path / "run").exists()
    assert cli("train", path, "--run-dir", tmp_path / "run", "trainer.steps=1").exit_code == 0


@pytest.mark.parametrize(
    ("changes", "overrides", "message"),
    [
        ({}, ["trainer.stps=3"], "stps"),
        ({}, ["trainer.steps=many"], "trainer.steps"),
        ({}, ["trainer.steps=0"], "trainer.steps"),
        ({"task": {"name": "countng"}}, [], "did you mean 'counting'?"),
        ({"rewards": {"counting": {}}}, [], "'counting' is a task, not a reward"),
        ({"algorithm": {"name": "grpo"}}, ["sampling.group_size=1"], "group_size"),
        ({}, ["model.path=no/such/folder"], "no/such/folder"),
        ({"task": {"name": "counting", "long_at": 3}}, [], "over sampling.max_prompt_tokens=20"),
        (
            {"task": {"name": "counting", "problems": 0}},
            [],
            "no problems in its eval split: size('eval') is 0",
        ),
        ({}, ["trainer.minibatches=3"], "minibatches"),
        ({"logging": {"trackers": ["bord"]}}, [], "logging.trackers: no tracker 'bord'; available: "),
        ({"algorithm": {"name": "sabotage", "pattern": ["unbuildable"]}}, [], "pattern cannot be built"),
    ],
    ids=[
        "unknown key",
        "wrong type",
        "out of range",
        "unknown component",
        "another kind",
        "group of one",
        "no model",
        "long prompt",
        "empty data",
        "indivisible",
        "unknown tracker",
        "algorithm",
    ],
)
def test_wrong_input_ends_with_one_line_and_writes_nothing(
    changes: dict[str, Any],
    overrides: list[str],
    message: str,
    tiny_model: Path,
    tmp_path: Path,
) -> None:
    path = recipe(tmp_path, tiny_model, **changes)
    done = cli("train", path, *overrides)
    assert done.exit_code == 2, done.output
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, lines
    assert message in lines[0]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["faulty.yaml"]


def test_completions_beyond_the_models_context_are_refused_before_anything_is_written(
    tiny_model: Path, tmp_path: Path
) -> None:
    done = train(tmp_path, tiny_model, "sampling.max_completion_tokens=100000", code=2)
    assert [line for line in done.output.splitlines() if "no room for a prompt in the model's context of 2048" in line]
    assert not (tmp_path / "run").exists()


def test_a_missing_recipe_is_named(tmp_path: Path) -> None:
    done = cli("train", tmp_path / "nowhere.yaml")
    assert done.exit_code == 2
    assert "nowhere.yaml: no such recipe file" in done.output


def test_an_existing_run_folder_is_refused_and_one_in_use_differently(tiny_model: Path, tmp_path: Path) -> None:
    path, run_dir = recipe(tmp_path, tiny_model), tmp_path / "run"
    run_dir.mkdir()
    done = cli("train", path, "--run-dir", run_dir)
    assert (done.exit_code, "already exists" in done.output) == (2, True)
    with FileLock(run_dir / ".lock"):
        done = cli("train", path, "--run-dir", run_dir)
        assert (done.exit_code, "in use by another run" in done.output) == (3, True)
    assert [p.name for p in run_dir.iterdir()] == [".lock"]


def test_an_output_folder_that_cannot_be_made_is_the_users_error(tiny_model: Path, tmp_path: Path) -> None:
    path = recipe(tmp_path, tiny_model)
    done = cli("train", path, f"output_dir={path}/runs")
    assert done.exit_code == 2
    assert "cannot create a run folder" in done.output


def test_a_full_disk_at_the_checkpoint_ends_with_one_line(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = recipe(tmp_path, tiny_model)
    real = Path.mkdir

    def refuse(self: Path, *args: Any, **options: Any) -> None:
        if self.name == ".tmp-step_000002":
            raise OSError(28, "No space left on device")
        real(self, *args, **options)

    monkeypatch.setattr(Path, "mkdir", refuse)
    done = cli("train", path, "checkpoint.every=1", "--run-dir", tmp_path / "run")
    assert done.exit_code == 1
    assert "No space left on device; earlier checkpoints are kept" in done.output
    assert summary_of(tmp_path / "run")["outcome"] == "failed"
    assert [p.name for p in (tmp_path / "run" / "checkpoints").iterdir()] == ["step_000001"]

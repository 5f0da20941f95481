"""What `reasonrl resume` continues, what it refuses, and what it prints."""

import json
import logging
import re
import shutil
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from filelock import FileLock
from support.resume_runs import ALGORITHMS, SCRIPTED, assert_same_run, cut_back, go, whole_run
from typer.testing import CliRunner

import reasonrl
from reasonrl.cli.app import app
from reasonrl.errors import CheckpointError
from reasonrl.observability.reporter import SilentReporter
from reasonrl.rundir.manifest import write_manifest
from reasonrl.signals import StopRequested, handle_stop_signals

TRAINER = {"steps": 3, "prompts_per_step": 4}


def resume_cli(run: Path, *arguments: str) -> Any:
    return CliRunner().invoke(app, ["resume", str(run), *arguments, "--plugin", SCRIPTED])


@pytest.mark.parametrize(
    "sections",
    [
        ALGORITHMS["ppo"],
        {**ALGORITHMS["ppo"], "critic": {"kind": "separate", "warmup_steps": 3}},
        {**ALGORITHMS["grpo"], "lora": {"rank": 2}},
    ],
    ids=["ppo", "separate critic in its warm-up", "grpo with adapters"],
)
def test_a_run_with_real_rollouts(sections: dict[str, Any], tiny_model: Path, tmp_path: Path) -> None:
    trainer = {"steps": 4, "prompts_per_step": 4, "minibatches": 2}
    run = whole_run(tmp_path, tiny_model, trainer=trainer, **sections)
    for step in (0, 2):
        copy = cut_back(run, tmp_path / f"from-{step}", step)
        go(None, copy)
        assert_same_run(run, copy)


def test_a_supervised_run(tiny_model: Path, tmp_path: Path) -> None:
    sections = dict.fromkeys(("algorithm", "critic", "trainer"))
    sft = {"sft": {"max_tokens": 400, "tokens_per_batch": 50}}
    run = whole_run(tmp_path, tiny_model, **sections, **sft)
    for step in (0, 3, 7):
        copy = cut_back(run, tmp_path / f"from-{step}", step)
        go(None, copy)
        assert_same_run(run, copy)


@pytest.fixture(scope="module")
def finished(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of three steps with all its checkpoints; tests work on copies."""
    folder = tmp_path_factory.mktemp("finished")
    return whole_run(folder, tiny_model, trainer=TRAINER, rollout_backend={"name": "script"})


def test_a_finished_run_says_so_and_can_go_on_for_longer(finished: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    done = resume_cli(run)
    assert done.exit_code == 0
    assert "is finished: 3 steps" in done.output
    assert "trainer.steps=6" in done.output
    done = resume_cli(run, "trainer.steps=5", "--plain")
    assert done.exit_code == 0, done.output
    assert "after step 3" in done.output
    summary = json.loads((run / "summary.json").read_text())
    assert (summary["outcome"], summary["steps"]) == ("completed", 5)
    assert yaml.safe_load((run / "recipe.yaml").read_text())["trainer"]["steps"] == 5
    assert [entry["after_step"] for entry in json.loads((run / "run.json").read_text())["resumed"]] == [3]
    assert "is finished: 5 steps" in resume_cli(run).output


def test_without_a_checkpoint_it_starts_again_in_the_same_folder(finished: Path, tmp_path: Path) -> None:
    run = cut_back(finished, tmp_path / "run", -1)
    assert go(None, run).outcome == "completed"
    assert_same_run(finished, run)


def test_what_came_after_the_checkpoint_is_forgotten(finished: Path, tmp_path: Path) -> None:
    run = cut_back(finished, tmp_path / "run", 1)
    (run / "checkpoints" / ".tmp-step_000002").mkdir()
    (run / "checkpoints" / ".gone-step_000000").mkdir()
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "reward/me')
    go(None, run)
    assert_same_run(finished, run)
    names = sorted(p.name for p in (run / "checkpoints").iterdir())
    assert names == ["step_000001", "step_000002", "step_000003"]


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("optimizer", {"learning_rate": 0.02}, "recipe.optimizer.learning_rate: 0.01 -> 0.02"),
        ("seed", 7, "recipe.seed: 0 -> 7"),
        ("task", {"name": "counting"}, "counting"),
    ],
)
def test_a_changed_recipe_is_refused_with_what_changed(
    key: str, value: Any, said: str, finished: Path, tmp_path: Path
) -> None:
    run = cut_back(finished, tmp_path / "run", 1)
    recipe = yaml.safe_load((run / "recipe.yaml").read_text())
    recipe[key] = {**recipe[key], **value} if isinstance(value, dict) and key == "optimizer" else value
    (run / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    before = {p: p.read_bytes() for p in run.rglob("*") if p.is_file() and p.name != "recipe.yaml"}
    done = resume_cli(run)
    assert done.exit_code == 2
    assert said in done.output
    assert len(done.stderr.strip().splitlines()) == 1
    assert before == {p: p.read_bytes() for p in run.rglob("*") if p.is_file() and p.name != "recipe.yaml"}


def test_another_tokenizer_or_plugin_version_is_refused(finished: Path, tmp_path: Path) -> None:
    run = cut_back(finished, tmp_path / "plugin", 3)
    manifest = json.loads((run / "run.json").read_text())
    for record in manifest["plugins"]:
        record["version"] = "0.0.1" if record["name"] == "ppo" else record["version"]
    (run / "run.json").write_text(json.dumps(manifest))
    done = resume_cli(run)
    assert done.exit_code == 2
    assert "plugins.ppo" in done.output
    run = cut_back(finished, tmp_path / "tokenizer", 3)
    model = Path(yaml.safe_load((run / "recipe.yaml").read_text())["model"]["path"])
    original = (model / "tokenizer_config.json").read_text()
    try:
        config = json.loads(original)
        (model / "tokenizer_config.json").write_text(json.dumps({**config, "pad_token": config["eos_token"]}))
        done = resume_cli(run)
    finally:
        (model / "tokenizer_config.json").write_text(original)
    assert done.exit_code == 2
    assert "tokenizer.sha256" in done.output
    assert not (run / "summary.json").exists()


NEW_KEYS = (
    "algorithm.gamma",
    "evaluation.suites.held_out.top_k",
    "logging.report",
    "optimizer.eps",
    "rollout_correction",
    "trainer.offload",
)


def forget(recipe: dict[str, Any], keys: tuple[str, ...]) -> None:
    """As the recipe would be had an earlier version written it."""
    for key in keys:
        *sections, last = key.split(".")
        section = recipe
        for name in sections:
            section = section[name]
        section.pop(last, None)


def written_before(finished: Path, run: Path, keys: tuple[str, ...]) -> Path:
    """A copy of a run with one step left, of a version that did not know ``keys``."""
    cut_back(finished, run, 2)
    manifest = json.loads((run / "run.json").read_text())
    forget(manifest["recipe"], keys)
    (run / "run.json").write_text(json.dumps(manifest))
    for state in run.glob("checkpoints/*/trainer_state.json"):
        content = json.loads(state.read_text())
        forget(content["identity"]["recipe"], keys)
        state.write_text(json.dumps(content))
        (state.parent / "manifest.json").unlink()
        write_manifest(state.parent)
    return run


def test_a_run_that_is_older_than_keys_of_a_recipe_takes_their_defaults(
    finished: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = written_before(finished, tmp_path / "run", NEW_KEYS)
    done = resume_cli(run)
    assert done.exit_code == 0, done.output
    (told,) = [line for line in caplog.messages if "version without these keys" in line]
    assert "optimizer.eps=1e-08" in told
    assert "trainer.offload=[]" in told
    assert_same_run(finished, run)
    assert json.loads((run / "run.json").read_text())["resumed"][0]["changed"] == {}


@pytest.mark.parametrize(
    ("section", "written"),
    [
        ("optimizer", {"eps": 1e-6}),
        ("optimizer", {"eps": 1e-8}),  # written there by somebody: it was not in force
        ("rollout_correction", {"level": "token"}),
        ("rewards", {"parity": {"weight": 1.0}, "countdown": {"weight": 1.0}}),
    ],
)
def test_a_key_that_was_added_to_the_recipe_of_a_run_is_a_change(
    section: str, written: dict[str, Any], finished: Path, tmp_path: Path
) -> None:
    run = written_before(finished, tmp_path / "run", ("optimizer.eps",))
    recipe = yaml.safe_load((run / "recipe.yaml").read_text())
    recipe[section] = {**recipe.get(section, {}), **written}
    (run / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    done = resume_cli(run)
    assert done.exit_code == 2
    assert f"recipe.{section}" in done.output


@pytest.mark.parametrize("override", ["optimizer.learning_rate=1", "trainer.minibatches=1", "seed=1"])
def test_no_other_override_is_taken(override: str, finished: Path) -> None:
    done = resume_cli(finished, override)
    assert done.exit_code == 2
    assert "cannot change when resuming" in done.output


def test_a_damaged_checkpoint_is_passed_over_named_and_kept_aside(
    finished: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = cut_back(finished, tmp_path / "run", 2)
    weights = run / "checkpoints" / "step_000002" / "optimizer.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    with pytest.raises(CheckpointError, match=r"optimizer\.safetensors: its content changed"):
        go(None, run, strict=True)
    assert not (run / "summary.json").exists(), "a refused resume says how the run ended"
    with caplog.at_level(logging.WARNING):
        go(None, run)
    assert re.search("skipping corrupted checkpoint .*step_000002: optimizer.safetensors", caplog.text)
    assert (run / "checkpoints" / "damaged-step_000002-1").is_dir()
    assert_same_run(finished, run)


def test_a_folder_in_use_and_a_folder_that_is_no_run_are_refused(finished: Path, tmp_path: Path) -> None:
    run = cut_back(finished, tmp_path / "run", 2)
    with FileLock(run / ".lock"):
        done = resume_cli(run)
    assert (done.exit_code, "in use by another run" in done.output) == (3, True)
    done = resume_cli(tmp_path)
    assert (done.exit_code, "is not a run folder" in done.output) == (2, True)


def test_the_best_checkpoint_stays_and_is_named(tiny_model: Path, tmp_path: Path) -> None:
    suites = {"held_out": {"problems": 2}}
    run = whole_run(
        tmp_path,
        tiny_model,
        trainer={"steps": 6, "prompts_per_step": 4},
        rollout_backend={"name": "script"},
        evaluation={"every": 1, "suites": suites},
        checkpoint={"every": 1, "keep": 1},
    )
    best = json.loads((run / "summary.json").read_text())["best"]
    # The scripted completions do not depend on the policy, so the first of equals is the best.
    assert best == {"step": 1, "suite": "held_out", "accuracy": best["accuracy"]}
    assert sorted(p.name for p in (run / "checkpoints").iterdir()) == ["step_000001", "step_000006"]


class Stopper(SilentReporter):
    """A reporter that presses Ctrl-C when a phase begins for the n-th time."""

    def __init__(self, phase: str, number: int) -> None:
        self.wanted, self.number, self.seen = phase, number, Counter[str]()

    def phase(self, phase: Any) -> None:
        import signal

        self.seen[phase] += 1
        if phase == self.wanted and self.seen[phase] == self.number:
            signal.raise_signal(signal.SIGTERM)


@pytest.mark.parametrize(
    ("phase", "number", "saved"),
    [
        ("evaluating", 1, 0),
        ("sampling", 1, 0),
        ("sampling", 3, 2),
        ("updating", 2, 2),
        ("saving", 1, 1),
        ("evaluating", 2, 3),
    ],
)
def test_a_signal_in_any_phase_saves_the_boundary_and_goes_on_exactly(
    phase: str, number: int, saved: int, finished: Path, tiny_model: Path, tmp_path: Path
) -> None:
    recipe = finished.parent / "broken.yaml"
    every = 1 if phase == "saving" else 0
    run = tmp_path / "run"
    overrides = [f"checkpoint.every={every}"]
    with pytest.raises(StopRequested) as caught:
        go(recipe, run, *overrides, reporter=Stopper(phase, number))
    assert caught.value.exit_code == 143
    assert json.loads((run / "summary.json").read_text())["outcome"] == "interrupted"
    assert [p.name for p in (run / "checkpoints").iterdir()] == [f"step_{saved:06d}"]
    go(None, run)
    for copy in (finished, run):
        state = json.loads((copy / "checkpoints" / "step_000003" / "trainer_state.json").read_text())
        assert state["is_recorded"]
    one, other = (copy / "checkpoints" / "step_000003" for copy in (finished, run))
    for name in ("model.safetensors", "optimizer.safetensors", "trainable.safetensors"):
        assert (one / name).read_bytes() == (other / name).read_bytes()
    texts = [sorted(p.name for p in (copy / "transcripts").iterdir()) for copy in (finished, run)]
    assert texts[0] == texts[1]


@pytest.fixture
def default_handlers() -> Iterator[None]:
    """Those of a terminal's foreground: a shell starts `pytest &` with SIGINT ignored."""
    kept = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    yield
    for number, handler in kept.items():
        signal.signal(number, handler)


def test_handlers_are_restored_and_ignored_signals_stay_ignored(default_handlers: None) -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with handle_stop_signals() as stop:
        assert signal.getsignal(signal.SIGINT) == stop.handle
        with pytest.raises(StopRequested):
            signal.raise_signal(signal.SIGINT)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with handle_stop_signals():
        signal.raise_signal(signal.SIGINT)


def test_it_is_there_from_python(finished: Path) -> None:
    result = reasonrl.resume(finished, plugins=[SCRIPTED])
    assert result.outcome == "already completed"
    assert result.model_path == finished / "checkpoints" / "step_000003"

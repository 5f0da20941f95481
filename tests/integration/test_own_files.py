"""Runs that rest on files of the user's own: a reward in a file, a plugin given by ``--plugin``."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.resume_runs import cut_back
from typer.testing import CliRunner

from reasonrl.cli.app import app

PLUGIN = """\
from reasonrl import Problem, RewardSpec, TaskSpec, hookimpl


class Successors:
    def __init__(self, config, context): ...

    def size(self, split):
        return None

    def problem(self, split, index):
        return Problem(id=f"next/{split}/{index}", prompt=f"{index}+1=", info={"n": index})


class Spaces:
    def __init__(self, config, context): ...

    def score(self, problem, completion):
        return 1.0 if " " in completion.text else 0.0


@hookimpl
def reasonrl_tasks():
    yield TaskSpec(name="successors", summary="n+1.", factory=Successors, default_rewards=("spaces",))


@hookimpl
def reasonrl_rewards():
    yield RewardSpec(name="spaces", summary="Spaces.", factory=Spaces)
"""
REWARD = """\
from digits import count

def score(problem, completion):
    return min(1.0, count(completion.text) / 4)
"""
NEIGHBOR = "def count(text):\n    return sum(map(str.isalpha, text))\n"


def command(*arguments: object, code: int = 0) -> str:
    done = CliRunner().invoke(app, list(map(str, arguments)))
    assert done.exit_code == code, done.output
    return done.output


@pytest.fixture
def forget_imports(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test imports, another one may have under the same name."""
    for name in ("own_reward", "digits", "own_plugin"):
        monkeypatch.setitem(sys.modules, name, sys)  # so that it is taken away afterward
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "path", list(sys.path))


def project(folder: Path, model: Path, **sections: Any) -> Path:
    """A recipe, a reward with a module beside it, and a plugin, in one folder."""
    folder.mkdir()
    for name, text in (("own_reward", REWARD), ("digits", NEIGHBOR), ("own_plugin", PLUGIN)):
        (folder / f"{name}.py").write_text(text)
    recipe = {
        "name": "own",
        "model": {"path": str(model)},
        "task": {"name": "successors"},
        "algorithm": {"name": "grpo"},
        "sampling": {"group_size": 4, "max_prompt_tokens": 20, "max_completion_tokens": 6},
        "optimizer": {"learning_rate": 0.01},
        "trainer": {"steps": 2, "prompts_per_step": 4},
        "evaluation": {"every": 0, "suites": {"held_out": {"problems": 3}}},
        "checkpoint": {"every": 1},
        **sections,
    }
    (folder / "own.yaml").write_text(yaml.safe_dump(recipe))
    return folder / "own.yaml"


COUNTDOWN = {"task": {"name": "countdown", "template": "compact"}}
LIMITS = {"group_size": 4, "max_prompt_tokens": 64, "max_completion_tokens": 6}


def reward_project(folder: Path, model: Path, **slot: Any) -> Path:
    rewards = {"mine": {"path": "own_reward.py:score", **slot}}
    return project(folder, model, rewards=rewards, sampling=LIMITS, **COUNTDOWN)


@pytest.mark.parametrize("slot", [{}, {"isolation": "process", "timeout_s": 20}], ids=["inline", "process"])
def test_a_reward_from_a_file_lives_as_long_as_its_run(
    slot: dict[str, Any],
    tiny_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    forget_imports: None,
) -> None:
    """Checked and trained where it is, then resumed, measured and asked from another folder."""
    recipe = reward_project(tmp_path / "project", tiny_model, **slot)
    monkeypatch.chdir(recipe.parent)
    assert "own.yaml: ok" in command("recipes", "check", "own.yaml")
    out = command("train", "own.yaml", "--run-dir", tmp_path / "run")
    assert f"rewards mine x 1 ({recipe.parent}/own_reward.py:score)" in out
    monkeypatch.chdir(tmp_path)
    manifest = json.loads((tmp_path / "run" / "run.json").read_text())
    assert manifest["recipe"]["rewards"]["mine"]["path"] == f"{recipe.parent}/own_reward.py:score"
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert all(line["reward/component/mine"] > 0 for line in lines)
    assert all(line["train/unscored_frac"] == 0 for line in lines)
    resumed = cut_back(tmp_path / "run", tmp_path / "resumed", 1)
    assert "after step 1" in command("resume", resumed)
    again = [json.loads(line) for line in (resumed / "metrics.jsonl").read_text().splitlines()]
    assert [line["train/reward"] for line in again] == [line["train/reward"] for line in lines]
    figures = json.loads(CliRunner().invoke(app, ["eval", "run", "--json"]).stdout)
    assert (figures["held_out"]["problems"], figures["held_out"]["unscored_frac"]) == (3, 0)
    assert "unscored" not in command("generate", "run", "-n", "2")


def test_a_recipe_is_trained_from_another_folder(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, forget_imports: None
) -> None:
    reward_project(tmp_path / "project", tiny_model)
    monkeypatch.chdir(tmp_path)
    command("train", "project/own.yaml", "trainer.steps=1", "--run-dir", "run")
    assert f"{tmp_path}/project/own_reward.py:score" in (tmp_path / "run" / "recipe.yaml").read_text()
    monkeypatch.chdir("/")
    command("train", tmp_path / "run" / "recipe.yaml", "--run-dir", tmp_path / "again")


def test_a_file_that_is_not_what_it_was(
    tiny_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    forget_imports: None,
    caplog: pytest.LogCaptureFixture,
) -> None:
    recipe = reward_project(tmp_path / "project", tiny_model)
    monkeypatch.chdir(tmp_path)
    command("train", recipe, "--run-dir", "whole")
    file = recipe.parent / "own_reward.py"
    run = cut_back(tmp_path / "whole", tmp_path / "run", 1)
    file.write_text(REWARD + "\n# another reward, perhaps\n")
    out = command("resume", run, code=2)
    assert "recipe.rewards.mine: its file was edited; undo the change, or start a new run" in out
    assert len(out.strip().splitlines()) == 1
    command("eval", run, "--json")
    assert f"reward 'mine': {file} was edited after {run} was trained" in caplog.text
    file.rename(file.with_name("renamed.py"))
    for name in ("resume", "eval", "generate"):
        out = command(name, run, code=2)
        assert f"recipe.yaml:{line_of(run, 'path: /')}: rewards.mine.path names a file that is not there" in out
        assert str(file) in out
    file.write_text(REWARD)
    command("resume", run)


def test_a_reward_that_scores_nothing_is_named(
    tiny_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    forget_imports: None,
    caplog: pytest.LogCaptureFixture,
) -> None:
    recipe = reward_project(tmp_path / "project", tiny_model)
    monkeypatch.chdir(recipe.parent)
    (recipe.parent / "own_reward.py").write_text("def score(problem, completion):\n    return None\n")
    out = command("train", "own.yaml", "evaluation.suites.held_out.problems=8", "--run-dir", "run", code=1)
    said = "reward 'mine' gave no score for 16 of 16 completions (returned None), since step 1"
    assert f"100% of the batch could not be scored, over the limit of 20%; {said}" in out
    assert "reward 'mine' returned None for all of 8 completions; they stay unscored" in caplog.text
    assert caplog.text.count("returned None for all") == 1


def line_of(run: Path, text: str) -> int:
    lines = (run / "recipe.yaml").read_text().splitlines()
    return next(number for number, line in enumerate(lines, 1) if line.strip().startswith(text) and "own_" in line)


@pytest.fixture(scope="module")
def trained(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of a plugin given by a relative path."""
    folder = tmp_path_factory.mktemp("trained")
    recipe = project(folder / "project", tiny_model)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(recipe.parent)
        patch.setattr(sys, "path", list(sys.path))
        command("train", "own.yaml", "--plugin", "own_plugin.py", "--run-dir", folder / "run")
        patch.delitem(sys.modules, "own_plugin")
    return folder / "run"


@pytest.fixture
def plugin_file(trained: Path) -> Path:
    """As it was when the run was started."""
    file = trained.parent / "project" / "own_plugin.py"
    file.write_text(PLUGIN)
    return file


@pytest.fixture
def plugin_run(
    trained: Path, plugin_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, forget_imports: None
) -> Path:
    """A copy of the run; the working folder is not the one that it was started in."""
    monkeypatch.chdir(tmp_path)
    return shutil.copytree(trained, tmp_path / "run")


def test_a_run_brings_the_plugin_it_was_started_with(
    plugin_run: Path, plugin_file: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    resumed = cut_back(plugin_run, tmp_path / "resumed", 1)
    for arguments in (
        ["eval", plugin_run, "--json"],
        ["eval", plugin_run / "checkpoints" / "step_000002", "--json"],
        ["generate", plugin_run],
        ["resume", resumed],
        ["resume", resumed, "trainer.steps=3"],
    ):
        caplog.clear()
        command(*arguments)
        run = resumed if resumed in arguments else plugin_run
        assert f"loading the plugin {plugin_file}, which {run} was started with" in caplog.text
    command("behaviors", plugin_run, code=0)
    command("doctor", plugin_run, code=0)
    caplog.clear()
    command("eval", plugin_run, "--json", "--plugin", plugin_file)
    assert "loading the plugin" not in caplog.text


@pytest.mark.parametrize("change", ["edited", "gone", "inside", "foreign", "broken"])
def test_a_plugin_that_is_not_what_it_was_is_named_with_the_way_out(
    change: str,
    plugin_run: Path,
    plugin_file: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    expected = {
        "edited": f"{plugin_file} was edited after",
        "gone": f"{plugin_file} is not there any more",
        "inside": f"{plugin_run / 'own_plugin.py'} is inside the run folder",
        "foreign": "run.json belongs to another user",
        "broken": "ZeroDivisionError",
    }[change]
    change_plugin(change, plugin_run, plugin_file, monkeypatch)
    for name in ("eval", "generate", "resume"):
        line = command(name, plugin_run, code=2).strip()
        assert "no task 'successors'" in line
        assert expected in line
        assert "give --plugin" in line
        assert len(line.splitlines()) == 1
    if change == "edited":
        command("eval", plugin_run, "--plugin", plugin_file, "--json")
        assert f"the plugin {plugin_file} was edited after {plugin_run} was started with it" in caplog.text


def change_plugin(change: str, run: Path, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = json.loads((run / "run.json").read_text())
    record = next(r for r in manifest["plugins"] if r["name"] == "own_plugin")
    if change == "edited":
        file.write_text(PLUGIN + "\n")
    elif change == "gone":
        file.unlink()
    elif change == "inside":
        shutil.move(file, run / "own_plugin.py")
        record["file"] = record["value"] = str(run / "own_plugin.py")
    elif change == "foreign":
        if os.getuid() == 0:
            os.chown(run / "run.json", 1, -1)
        monkeypatch.setattr(os, "getuid", lambda: 2)
    else:
        monkeypatch.setattr("reasonrl.importing.import_file", lambda path: 1 / 0)
    (run / "run.json").write_text(json.dumps(manifest))


def test_a_plugin_that_is_installed_by_now_is_not_loaded_twice(
    plugin_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = tmp_path / "site"
    info = site / "reasonrl_own-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "packaged_own.py").write_text(PLUGIN)
    (info / "METADATA").write_text("Metadata-Version: 2.4\nName: reasonrl-own\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[reasonrl]\nown = packaged_own\n")
    monkeypatch.syspath_prepend(site)
    command("eval", plugin_run, "--json")


@pytest.mark.slow
def test_the_whole_way_in_processes_of_their_own(tiny_model: Path, tmp_path: Path) -> None:
    """As a stranger walks it: nothing is imported before, and every command starts somewhere else."""
    recipe = reward_project(tmp_path / "project", tiny_model)
    text = recipe.read_text().replace("name: countdown\n  template: compact", "name: successors")
    recipe.write_text(text)
    steps = [
        (recipe.parent, ["train", "own.yaml", "--plugin", "own_plugin.py", "--run-dir", tmp_path / "run"]),
        (tmp_path, ["eval", "run", "--json"]),
    ]
    for folder, arguments in steps:
        done = subprocess.run(
            [sys.executable, "-m", "reasonrl", *map(str, arguments)],
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["held_out"]["unscored_frac"] == 0
    assert f"loading the plugin {recipe.parent}/own_plugin.py, which run was started with" in done.stderr

"""Every recipe that is shipped trains, by the command in its header."""

import json
import shutil
from pathlib import Path

import pytest
import yaml
from stranger.commands import Commands
from stranger.markdown import ROOT
from stranger.page import lay_out_clone

OURS = sorted((ROOT / "recipes").rglob("*.yaml"))
SEPARATE = sorted(ROOT.glob("plugins/*/src/*/recipes/*.yaml"))


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def verb_of(path: Path) -> str:
    return "sft" if "sft" in yaml.safe_load(path.read_text(encoding="utf-8")) else "train"


STEPS = {"train": 2, "sft": 2}


def check_run(folder: Path, steps: int) -> None:
    (summary,) = folder.glob("runs/*/summary.json")
    result = json.loads(summary.read_text(encoding="utf-8"))
    assert (result["outcome"], result["steps"]) == ("completed", steps)
    assert len(list(summary.parent.glob(f"checkpoints/step_{steps:06d}/model.safetensors"))) == 1


@pytest.mark.parametrize("recipe", OURS, ids=name_of)
def test_a_recipe_of_the_repository_trains(recipe: Path, tmp_path: Path, commands: Commands) -> None:
    """A few steps, the model replaced by a tiny one of its architecture if it would have to be fetched."""
    shutil.copytree(ROOT / "recipes", tmp_path / "recipes")
    file = recipe.relative_to(ROOT).as_posix()
    checked = commands.reasonrl("recipes", "check", file, cwd=tmp_path)
    assert checked.code == 0, checked
    done = commands.reasonrl(verb_of(recipe), file, cwd=tmp_path, shrink=True)
    assert done.code == 0, done
    assert "Warning" not in done.err, done
    check_run(tmp_path, STEPS[verb_of(recipe)])


def test_the_wheel_ships_the_recipes_of_the_repository(
    commands: Commands, described: dict[str, list[str]], tmp_path: Path
) -> None:
    """By name, each says what the file says. All are there; every third is shown."""
    files = {yaml.safe_load(recipe.read_text(encoding="utf-8"))["name"]: recipe for recipe in OURS}
    assert files.keys() <= set(described["recipes"])
    for name in sorted(files)[::3]:
        by_name, by_path = (
            commands.reasonrl("recipes", "show", what, cwd=tmp_path) for what in (name, str(files[name]))
        )
        assert by_name.code == 0, by_name
        assert by_name.out == by_path.out


@pytest.mark.parametrize("recipe", SEPARATE, ids=name_of)
def test_a_recipe_of_a_separate_plugin_trains(recipe: Path, tmp_path: Path, commands: Commands) -> None:
    """By name, once the plugin is installed."""
    lay_out_clone(tmp_path)
    project = recipe.relative_to(ROOT).parts[1]
    text = f"pip install -e plugins/{project}\nreasonrl recipes check {recipe.stem}\nreasonrl train {recipe.stem}\n"
    done = commands.shell(text, cwd=tmp_path)
    assert done.code == 0, done
    run = json.loads(next(tmp_path.glob("runs/*/summary.json")).read_text(encoding="utf-8"))
    assert run["outcome"] == "completed"

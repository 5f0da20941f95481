"""Names and paths of a recipe as the file system will meet them."""

from pathlib import Path

import pytest

from reasonrl.recipe.schema import DataConfig, Recipe, TrainerConfig
from reasonrl.recipe.schema import ModelConfig as Model
from reasonrl.recipe.suites import EvaluationConfig, SuiteConfig


def recipe(name: str = "a", output_dir: str = "runs") -> Recipe:
    return Recipe(
        name=name,
        output_dir=output_dir,
        model=Model(name="tiny"),
        task={"name": "toy"},
        algorithm={"name": "plain"},
        trainer=TrainerConfig(steps=1, prompts_per_step=1),
    )


@pytest.mark.parametrize("name", ["a\n", "\n", "a\nb", ".a", "", "a/b", "a" * 129])
def test_a_name_that_is_no_folder_name_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="name must be a name like"):
        recipe(name)
    with pytest.raises(ValueError, match="suites must be named like"):
        EvaluationConfig(suites={name: SuiteConfig()})


def test_a_tilde_is_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert recipe(output_dir="~/runs").output_dir == f"{tmp_path}/runs"
    assert DataConfig(path="~/d.jsonl").path == f"{tmp_path}/d.jsonl"
    assert recipe(output_dir="a~b").output_dir == "a~b"

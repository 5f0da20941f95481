"""What the plugin registers, and that registering it is cheap."""

import subprocess
import sys
from importlib import import_module

from reasonrl import RewardSpec, TaskSpec
from reasonrl_countdown import plugin

TORCH_FREE = """
import sys
import reasonrl_countdown, reasonrl_countdown.plugin, reasonrl_countdown.task, reasonrl_countdown.rewards
from reasonrl import TaskContext
config = reasonrl_countdown.plugin.CountdownConfig()
task = reasonrl_countdown.task.CountdownTask(config, TaskContext(seed=0))
task.reference(task.problem("train", 0))
print(sorted({"torch", "transformers", "tokenizers", "datasets", "pyarrow"} & set(sys.modules)))
"""


def test_using_the_task_imports_nothing_heavy() -> None:
    result = subprocess.run([sys.executable, "-c", TORCH_FREE], capture_output=True, text=True, check=True)
    assert result.stdout == "[]\n"


def test_specs_name_things_that_exist() -> None:
    specs: list[TaskSpec | RewardSpec] = [*plugin.reasonrl_tasks(), *plugin.reasonrl_rewards()]
    assert [spec.name for spec in specs] == [
        "countdown",
        "guess_number",
        "countdown",
        "countdown_tinyzero",
        "guess_number",
    ]
    for spec in specs:
        assert isinstance(spec.factory, str)
        module, _, name = spec.factory.partition(":")
        assert callable(getattr(import_module(module), name))
    rewards = {spec.name for spec in plugin.reasonrl_rewards()}
    assert all(set(task.default_rewards) <= rewards for task in plugin.reasonrl_tasks())


def test_every_option_has_help() -> None:
    fields = plugin.CountdownConfig.__dataclass_fields__.values()
    assert [f.name for f in fields if not f.metadata.get("help")] == []


def test_the_model_and_its_recipe_are_shipped() -> None:
    (model,) = plugin.reasonrl_models()
    recipes = {recipe.name: recipe.path for recipe in plugin.reasonrl_recipes()}
    assert (model.path / "config.json").is_file()
    assert (model.path / "tokenizer.json").is_file()
    assert model.recipe in recipes
    assert all(path.suffix == ".yaml" for path in recipes.values())
    assert set(recipes) >= {
        "countdown_ppo",
        "countdown_grpo",
        "countdown_base_sft",
        "qwen2.5_1.5b_ppo",
    }

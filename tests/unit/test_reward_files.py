"""A reward in one file, named by its path in the recipe."""

from pathlib import Path

import pytest

from reasonrl.errors import PluginContractError, RecipeError
from reasonrl.plugins import Plugins, load_plugins
from reasonrl.recipe.load import check_recipe
from reasonrl.recipe.render import render_plain
from reasonrl.recipe.resolved import AnyResolved
from reasonrl.rewards.from_file import FileReward
from reasonrl.testing.checks import assert_all_hold
from reasonrl.testing.rewards import check_reward

RECIPE = """\
name: mine
model: {name: countdown-base}
task: {name: countdown}
algorithm: {name: grpo}
sampling: {group_size: 2}
trainer: {steps: 1, prompts_per_step: 2}
rewards:
  mine: %s
"""
FUNCTION = """
from reasonrl import Score

def score(problem, completion):
    return float("please" in completion.text)

def rude(problem, completion):
    return Score(value=float("please" not in completion.text), reason="counted")

number = 3
"""


@pytest.fixture
def plugins() -> Plugins:
    return load_plugins(environ={"REASONRL_PLUGINS": "reasonrl"})


def check(folder: Path, slot: str, plugins: Plugins) -> AnyResolved:
    (folder / "r.yaml").write_text(RECIPE % slot)
    return check_recipe(folder / "r.yaml", [], plugins)


@pytest.fixture
def file(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A file of a name of its own: modules are imported once a process."""
    path = tmp_path / f"polite_{abs(hash(request.node.name)) % 10**9}.py"
    path.write_text(FUNCTION)
    return path


def test_a_function_in_a_file_is_a_reward(file: Path, tmp_path: Path, plugins: Plugins) -> None:
    resolved = check(tmp_path, f"{{path: '{file}:rude', weight: 0.5}}", plugins)
    component = resolved.rewards["mine"]
    assert component.weight == 0.5
    assert isinstance(plugins.build(component.spec, component.config, None), FileReward)
    options = {"path": f"{file}:rude"}
    assert_all_hold(check_reward(component.spec, options, plugins=plugins))


def test_the_function_is_called_score_if_none_is_named(file: Path, tmp_path: Path, plugins: Plugins) -> None:
    component = check(tmp_path, f"{{path: '{file}'}}", plugins).rewards["mine"]
    assert component.config.function == "score"


def test_it_may_run_in_a_process_of_its_own(file: Path, tmp_path: Path, plugins: Plugins) -> None:
    spec = (
        check(tmp_path, f"{{path: '{file}', isolation: process, timeout_s: 3}}", plugins).rewards["mine"].spec
    )
    assert (spec.isolation, spec.timeout_s) == ("process", 3)


@pytest.mark.parametrize(
    ("slot", "expected"),
    [
        (
            "{path: 'nowhere.py:score'}",
            r"r\.yaml:8: rewards\.mine\.path names a file that is not there: nowhere",
        ),
        ("{path: 'text.txt'}", r"rewards\.mine\.path must be FILE\.py:FUNCTION"),
        ("{path: 'x.py:not a name'}", r"rewards\.mine\.path must be FILE\.py:FUNCTION"),
        ("{path: 3}", r"rewards\.mine\.path must be text"),
        ("{path: '%s', colour: 1}", r"rewards\.mine\.colour: unknown key for reward 'mine'"),
    ],
)
def test_mistakes_are_one_line(
    slot: str, expected: str, file: Path, tmp_path: Path, plugins: Plugins
) -> None:
    with pytest.raises(RecipeError, match=expected) as caught:
        check(tmp_path, slot.replace("%s", str(file)), plugins)
    assert "\n" not in str(caught.value)


def test_without_a_path_the_name_must_be_installed(tmp_path: Path, plugins: Plugins) -> None:
    with pytest.raises(LookupError, match="no reward 'mine'"):
        check(tmp_path, "{weight: 1.0}", plugins)


def test_a_file_without_the_function_is_found_before_training(
    file: Path, tmp_path: Path, plugins: Plugins
) -> None:
    for name in ("absent", "number"):
        component = check(tmp_path, f"{{path: '{file}:{name}'}}", plugins).rewards["mine"]
        with pytest.raises(RecipeError, match=f"has no function '{name}'"):
            plugins.build(component.spec, component.config, None)


def test_a_file_that_cannot_be_imported_names_its_error(tmp_path: Path, plugins: Plugins) -> None:
    (tmp_path / "broken_reward_file.py").write_text("import no_such_module_anywhere\n")
    component = check(tmp_path, f"{{path: '{tmp_path}/broken_reward_file.py'}}", plugins).rewards["mine"]
    with pytest.raises(PluginContractError, match="no_such_module_anywhere"):
        plugins.build(component.spec, component.config, None)


def test_the_resolved_recipe_shows_where_it_is(file: Path, tmp_path: Path, plugins: Plugins) -> None:
    shown = render_plain(check(tmp_path, f"{{path: '{file}'}}", plugins))
    assert shown["rewards"]["mine"]["path"] == str(file)

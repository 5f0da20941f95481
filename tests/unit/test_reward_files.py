"""A reward in one file, named by its path in the recipe."""

import hashlib
from pathlib import Path

import pytest
import yaml

from reasonrl.errors import RecipeError
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
    spec = check(tmp_path, f"{{path: '{file}', isolation: process, timeout_s: 3}}", plugins).rewards["mine"].spec
    assert (spec.isolation, spec.timeout_s) == ("process", 3)


@pytest.mark.parametrize(
    ("slot", "expected"),
    [
        (
            "{path: 'nowhere.py:score'}",
            r"r\.yaml:8: rewards\.mine\.path names a file that is not there: nowhere\.py, neither where you start nor",
        ),
        ("{path: '/nowhere.py:score'}", r"rewards\.mine\.path names a file that is not there: /nowhere\.py$"),
        ("{path: 'text.txt'}", r"rewards\.mine\.path must be FILE\.py:FUNCTION"),
        ("{path: 'x.py:not a name'}", r"rewards\.mine\.path must be FILE\.py:FUNCTION"),
        ("{path: 3}", r"rewards\.mine\.path must be text"),
        ("{path: '%s', color: 1}", r"rewards\.mine\.color: unknown key for reward 'mine'"),
        ("{path: '%s', sha256: abc}", r"rewards\.mine\.sha256: unknown key for reward 'mine'"),
        ("{path: '%s:rudde'}", r"path must name a function: .* has no 'rudde'; did you mean 'rude'\?"),
        ("{path: '%s:number'}", r"path must name a function: 'number' of .* is 3"),
    ],
)
def test_mistakes_are_one_line(slot: str, expected: str, file: Path, tmp_path: Path, plugins: Plugins) -> None:
    with pytest.raises(RecipeError, match=expected) as caught:
        check(tmp_path, slot.replace("%s", str(file)), plugins)
    assert "\n" not in str(caught.value)


def test_without_a_path_the_name_must_be_installed(tmp_path: Path, plugins: Plugins) -> None:
    with pytest.raises(LookupError, match="no reward 'mine'"):
        check(tmp_path, "{weight: 1.0}", plugins)


SOURCES = [  # a file of its own each, its score() or what stands for it, and what is wrong
    ("def score(problem, completion): return 1.0", ""),
    ("def score(problem, completion, extra=3, *, more=4): return 1.0", ""),
    ("def score(*args): return 1.0", ""),
    ("score = lambda problem, completion: 1.0", ""),
    ("from os.path import join as score", ""),
    ("from os.path import *\ndef __getattr__(name): return print", ""),
    ("if True:\n    def score(problem, completion): return 1.0", ""),
    ("try:\n    import no_such_module\nexcept ImportError:\n    def score(p, c): return 1.0", ""),
    ("import functools\n@functools.cache\ndef score(problem): return 1.0", ""),
    ("def score(problem): return 1.0", "takes \\(problem, completion\\): .* has score\\(problem\\)"),
    ("def score(problem, completion, more): return 1.0", "has score\\(problem, completion, more\\)"),
    ("def score(problem, completion, *, more): return 1.0", "has score\\(problem, completion, \\*, more\\)"),
    ("def score(): return 1.0", "has score\\(\\)"),
    ("async def score(problem, completion): return 1.0", "'score' of .* is async"),
    ("def scores(problem, completion): return 1.0", "has no 'score'; did you mean 'scores'\\?"),
    ("", "has no 'score'$"),
    ("score = 'text'", "'score' of .* is 'text'"),
    ("def score(problem, completion)\n    return 1.0", "must name a Python file: .*\\.py:1: expected ':'"),
    ("x = 1\nimport no_such_module.part", "imports 'no_such_module' \\(line 2\\); install it"),
    ("from no_such_module import x", "imports 'no_such_module' \\(line 1\\); install it"),
    ("def score(p, c): return '\0'", "must name a Python file: .*null bytes"),
]


@pytest.mark.parametrize(("source", "expected"), SOURCES)
def test_what_a_file_lacks_is_said_without_running_it(
    source: str, expected: str, file: Path, tmp_path: Path, plugins: Plugins
) -> None:
    file.write_text(f"{source}\nraise SystemExit('it was run')\n")
    if not expected:
        check(tmp_path, f"{{path: '{file}'}}", plugins)
        return
    with pytest.raises(RecipeError, match=rf"r\.yaml:8: rewards\.mine\.path .*{expected}") as caught:
        check(tmp_path, f"{{path: '{file}'}}", plugins)
    assert "\n" not in str(caught.value)


def test_names_that_are_taken(file: Path, tmp_path: Path, plugins: Plugins) -> None:
    taken = tmp_path / "random.py"
    taken.write_text(FUNCTION)
    with pytest.raises(RecipeError, match=r"random\.py, but Python has a module 'random' .*; rename the file"):
        check(tmp_path, f"{{path: '{taken}'}}", plugins)
    (tmp_path / "below").mkdir()
    twin = tmp_path / "below" / file.name
    twin.write_text(FUNCTION)
    with pytest.raises(RecipeError, match=r"rewards\.b\.path names .*but .* has the same name; rename one"):
        check(tmp_path, f"{{path: '{file}'}}\n  b: {{path: '{twin}'}}", plugins)
    both = check(tmp_path, f"{{path: '{file}:score'}}\n  b: {{path: '{file}:rude'}}", plugins)
    assert [both.rewards[name].config.function for name in ("mine", "b")] == ["score", "rude"]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("def score(p, c): ...\n1 / 0", "py:2 cannot be imported: ZeroDivisionError: division by zero"),
        ("def score(p, c): ...\nraise SystemExit('no')", "py:2 cannot be imported: SystemExit: no"),
        ("from os.path import *", "has no function 'score'"),
        ("def __getattr__(name): return 3 if name == 'score' else print", "has no function 'score'"),
        ("make = lambda: None\nscore = make()", "has no function 'score'"),
        ("score = lambda problem: 1.0", "'score' of .* does not take \\(problem, completion\\)"),
    ],
)
def test_what_only_running_it_tells_is_found_before_training(
    source: str, expected: str, file: Path, tmp_path: Path, plugins: Plugins
) -> None:
    file.write_text(source)
    component = check(tmp_path, f"{{path: '{file}'}}", plugins).rewards["mine"]
    with pytest.raises(RecipeError, match=f"reward 'mine': .*{expected}"):
        plugins.build(component.spec, component.config, None)


def test_an_edited_file_is_the_edited_reward(file: Path, tmp_path: Path, plugins: Plugins) -> None:
    """Also in a process that has imported the old one, within the same second."""
    values = []
    for text in ("return 0.0", "return 1.0"):
        file.write_text(f"def score(problem, completion): {text}\n")
        component = check(tmp_path, f"{{path: '{file}'}}", plugins).rewards["mine"]
        reward = plugins.build(component.spec, component.config, None)
        values.append(reward.score(None, None))
    assert values == [0.0, 1.0]
    file.write_text("def score(problem, completion): return 0.5\n")
    component = check(tmp_path, f"{{path: '{file}'}}", plugins).rewards["mine"]
    file.write_text("def score(problem, completion): return 0.6\n")
    with pytest.raises(RecipeError, match="has changed since the recipe was read"):
        plugins.build(component.spec, component.config, None)


def test_a_relative_path_is_where_you_start_or_beside_the_recipe(
    tmp_path: Path, plugins: Plugins, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    for folder in (here, there):
        folder.mkdir()
    monkeypatch.chdir(here)
    (there / "placed_reward.py").write_text(FUNCTION)

    def found(*overrides: str) -> str:
        resolved = check_recipe(there / "r.yaml", list(overrides), plugins)
        kept = yaml.safe_load(resolved.source_yaml)["rewards"]["mine"]["path"]
        assert kept == resolved.rewards["mine"].config.path
        return str(kept)

    (there / "r.yaml").write_text(RECIPE % "{path: placed_reward.py}")
    assert found() == f"{there}/placed_reward.py:score"
    with pytest.raises(RecipeError, match=r"neither where you start"):  # an override is written where you start
        found("rewards.mine.path=placed_reward.py:rude")
    (here / "placed_reward.py").write_text(FUNCTION)
    assert found() == f"{here}/placed_reward.py:score"
    assert found("rewards.mine.path=placed_reward.py:rude") == f"{here}/placed_reward.py:rude"


def test_a_path_of_the_parent_is_beside_the_parent(tmp_path: Path, plugins: Plugins) -> None:
    (tmp_path / "below").mkdir()
    (tmp_path / "parents_reward.py").write_text(FUNCTION)
    (tmp_path / "r.yaml").write_text(RECIPE % "{path: parents_reward.py}")
    child = tmp_path / "below" / "child.yaml"
    child.write_text("extends: ../r.yaml\nname: child\n")
    assert check_recipe(child, [], plugins).rewards["mine"].config.file == tmp_path / "parents_reward.py"


def test_the_resolved_recipe_shows_where_it_is(file: Path, tmp_path: Path, plugins: Plugins) -> None:
    shown = render_plain(check(tmp_path, f"{{path: '{file}'}}", plugins))
    assert shown["rewards"]["mine"]["path"] == f"{file}:score"
    assert shown["rewards"]["mine"]["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()

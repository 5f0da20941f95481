"""What the documentation shows works as it stands there."""

import doctest
import importlib
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

import reasonrl
from reasonrl import Problem
from reasonrl.plugins import load_plugins
from reasonrl.recipe.load import check_recipe, load_recipe
from reasonrl.rundir.jsonl import read_jsonl
from reasonrl.runs.start import RunResult, train
from reasonrl.testing.checks import assert_all_hold
from reasonrl.testing.models import tiny_model_folder
from reasonrl.testing.tasks import completion_of

ROOT = Path(__file__).resolve().parents[2]
BLOCK = re.compile(r"^```(\w+)(?: title=\"([^\"]+)\")?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PAGE = ROOT / "docs" / "write-a-plugin.md"
REWARD_PAGE = ROOT / "docs" / "own-reward.md"
SHRINK = (
    "model.name=null",
    "trainer.steps=2",
    "trainer.prompts_per_step=4",
    "logging.transcripts_per_step=2",
)
NAMES = ("reasonrl_add.py", "add.yaml", "pyproject.toml", "test_add.py")
REWARD_NAMES = ("my_reward.py", "concise.yaml")


def blocks(path: Path) -> Iterator[tuple[str, str, str]]:
    """(language, title, text) of every code block."""
    for match in BLOCK.finditer(path.read_text(encoding="utf-8")):
        yield match[1], match[2] or "", match[3]


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The files of the tutorial in a folder of their own, which is the working folder."""
    titled = {title: text for page in (PAGE, REWARD_PAGE) for _, title, text in blocks(page) if title}
    assert sorted(titled) == sorted((*NAMES, *REWARD_NAMES))
    for title, text in titled.items():
        (tmp_path / title).write_text(text, encoding="utf-8")
    tiny_model_folder(tmp_path / "tiny", hidden=16, layers=1, heads=2, kv_heads=1)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    for module in ("reasonrl_add", "test_add", "my_reward"):  # not the copy of another test
        monkeypatch.delitem(sys.modules, module, raising=False)
    importlib.invalidate_caches()
    return tmp_path


def check_result(result: RunResult) -> None:
    assert result.outcome == "completed"
    assert result.summary["steps"] == 2
    assert result.summary["eval"]["last"]["suite"] == "held_out"
    assert result.run_dir is not None
    assert len((result.run_dir / "metrics.jsonl").read_text().splitlines()) == 2
    assert result.model_path is not None
    assert (result.model_path / "model.safetensors").is_file()


def test_the_tutorial_trains_as_a_file(files: Path) -> None:
    overrides = [*SHRINK, "model.path=tiny", "evaluation.suites.held_out.problems=8"]
    result = train("add.yaml", overrides, plugin_files=["reasonrl_add.py"])
    check_result(result)


@pytest.mark.slow
def test_the_printed_recipe_learns(files: Path) -> None:
    """With the model, the batch, the rate and the seed as printed; half the steps are enough to see it."""
    overrides = ["trainer.steps=10", "evaluation.suites.held_out.problems=128"]
    result = train("add.yaml", overrides, plugin_files=["reasonrl_add.py"])
    first, last = result.summary["eval"]["first"], result.summary["eval"]["last"]
    assert first["accuracy"] < 0.3
    assert last["accuracy"] > 0.8
    assert result.run_dir is not None
    rewards = [step["train/reward"] for step in read_jsonl(result.run_dir / "metrics.jsonl")]
    assert rewards[-1] > rewards[0] + 0.3
    assert rewards[0] > 0.1, "partial credit from the first step on"


def install(files: Path) -> None:
    """By hand: what pip would make of the page's pyproject.toml, without pip."""
    project = tomllib.loads((files / "pyproject.toml").read_text())["project"]
    info = files / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    info.mkdir()
    requires = "".join(f"Requires-Dist: {text}\n" for text in project["dependencies"])
    header = f"Metadata-Version: 2.4\nName: {project['name']}\nVersion: {project['version']}\n"
    (info / "METADATA").write_text(header + requires)
    points = "".join(f"{k} = {v}\n" for k, v in project["entry-points"]["reasonrl"].items())
    (info / "entry_points.txt").write_text(f"[reasonrl]\n{points}")


def test_the_tutorial_trains_as_a_package(files: Path) -> None:
    install(files)
    record = next(r for r in load_plugins().records if r.distribution == "reasonrl-add")
    assert (record.status, record.provides) == ("active", ("task add", "reward add"))
    overrides = [*SHRINK, "model.path=tiny", "evaluation.suites.held_out.problems=8"]
    check_result(reasonrl.run("add.yaml", overrides))


def test_the_tutorials_own_tests_pass(files: Path) -> None:
    install(files)
    module = importlib.import_module("test_add")
    found = [value for name, value in vars(module).items() if name.startswith("Test")]
    assert len(found) == 2
    for suite in found:
        results = suite.run_checks()
        assert len(results) > 10
        assert_all_hold(results)


def test_the_tutorials_reward_of_one_file_trains(files: Path) -> None:
    result = train("concise.yaml", [*SHRINK, "model.path=tiny", "evaluation.suites.held_out.problems=8"])
    check_result(result)
    assert result.run_dir is not None
    for step in read_jsonl(result.run_dir / "metrics.jsonl"):
        assert {"reward/component/countdown", "reward/component/concise"} <= step.keys()
        assert step["train/unscored_frac"] == 0
    component = load_recipe("concise.yaml", [], load_plugins()).rewards["concise"]
    mine = load_plugins().build(component.spec, component.config, None)
    problem = Problem(id="p", prompt="", info={})
    assert [mine.score(problem, completion_of(text)) for text in ("x" * 100, "x" * 200)] == [1.0, 0.5]


def test_the_hooks_page_names_a_reward_of_one_file_as_it_is_written(files: Path) -> None:
    text = (ROOT / "docs" / "hooks.md").read_text(encoding="utf-8")
    (line,) = re.findall(r"`(rewards: \{.*\})`", text)
    (files / "hook.yaml").write_text(f"{(files / 'add.yaml').read_text()}{line}\n")
    overrides = [*SHRINK, "model.path=tiny", "evaluation.suites.held_out.problems=8"]
    check_result(train("hook.yaml", overrides, plugin_files=["reasonrl_add.py"]))


def test_the_tutorial_fits_in_forty_lines() -> None:
    code = next(text for _, title, text in blocks(PAGE) if title == "reasonrl_add.py")
    assert len([line for line in code.splitlines() if line.strip()]) <= 40


def test_the_readme_shows_the_same_plugin() -> None:
    titled = {title: text for _, title, text in blocks(PAGE)}
    shown = [text for language, _, text in blocks(ROOT / "README.md") if language in ("python", "yaml")]
    assert shown == [titled["reasonrl_add.py"], titled["add.yaml"]]


def test_countdown_examples_hold() -> None:
    sessions = [text for language, _, text in blocks(ROOT / "docs/concepts/countdown.md") if language == "pycon"]
    assert sessions
    for number, session in enumerate(sessions):
        test = doctest.DocTestParser().get_doctest(session, {}, f"countdown-{number}", None, 0)
        assert doctest.DocTestRunner(verbose=False).run(test).failed == 0


def test_the_recipe_of_the_recipes_page_is_accepted(tmp_path: Path) -> None:
    page = ROOT / "docs/concepts/recipes.md"
    first, second = (text for language, _, text in blocks(page) if language == "yaml")
    plugins = load_plugins()
    (tmp_path / "first.yaml").write_text(first)
    assert check_recipe(tmp_path / "first.yaml", [], plugins).recipe.name == "my_run"
    parent = yaml.safe_load(second)["extends"]
    (tmp_path / parent).write_text(first)
    (tmp_path / "second.yaml").write_text(second)
    assert check_recipe(tmp_path / "second.yaml", [], plugins).recipe.name == "mine"

"""``reasonrl plugins new``: what it writes, and what it refuses in one line."""

import ast
import json
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from typer.testing import CliRunner

import reasonrl
from reasonrl.cli.app import app
from reasonrl.errors import PluginConflictError, ReasonRLError, RecipeError
from reasonrl.plugins import load_plugins
from reasonrl.scaffold.project import KINDS_OFFERED, MULTI_TURN, TEMPLATES, _bounds, create

PLUGINS = load_plugins(environ={"REASONRL_PLUGINS": "reasonrl"})
MAX_LINES = 50


def code_lines(text: str) -> int:
    return len([line for line in text.splitlines() if line.strip() and not line.strip().startswith("#")])


@pytest.mark.parametrize("kind", [*KINDS_OFFERED, "task --multi-turn"])
def test_a_project_is_whole(kind: str, tmp_path: Path) -> None:
    kind, _, multi_turn = kind.partition(" ")
    project = create("word-count", kind, tmp_path / "new", PLUGINS, multi_turn=bool(multi_turn))
    folder = tmp_path / "new" / "reasonrl-word-count"
    assert project.folder == folder
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert files == set(project.files)
    assert {
        ".github/workflows/ci.yml",
        ".gitignore",
        "LICENSE",
        "README.md",
        "pyproject.toml",
        "src/reasonrl_word_count/recipes/__init__.py",
        "src/reasonrl_word_count/recipes/word_count_smoke.yaml",
        "src/reasonrl_word_count/__init__.py",
        "src/reasonrl_word_count/py.typed",
        "tests/test_conformance.py",
    } <= files
    for path in folder.rglob("*.py"):
        tree = ast.parse(path.read_text())
        assert ast.get_docstring(tree)
        for function in ast.walk(tree):
            if isinstance(function, ast.FunctionDef) and "src" in path.parts:
                assert function.returns is not None, function.name
    for name in ("src/reasonrl_word_count/recipes/word_count_smoke.yaml", ".github/workflows/ci.yml"):
        assert isinstance(yaml.safe_load((folder / name).read_text()), dict)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["reasonrl-word-count"], "nothing half-made"
    for path in folder.rglob("*"):
        if path.is_file() and path.name != "ci.yml" and "models" not in path.parts:
            assert "$" not in path.read_text(), path
    assert "${{ vars.REASONRL }}" in (folder / ".github" / "workflows" / "ci.yml").read_text()


def test_its_requirement_is_bounded_above(tmp_path: Path) -> None:
    folder = create("word", "task", tmp_path, PLUGINS).folder
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    requirement = Requirement(project["dependencies"][0])
    assert requirement.name == "reasonrl"
    assert requirement.specifier.contains(reasonrl.__version__)
    assert not requirement.specifier.contains("99.0")
    assert project["entry-points"]["reasonrl"] == {"word": "reasonrl_word"}
    assert project["description"] == "The task word for reasonrl."
    assert project["license"] == "MIT"
    assert "authors of reasonrl-word" in (folder / "LICENSE").read_text()


@pytest.mark.parametrize(
    ("version", "bounds"),
    [("0.1.0", ">=0.1,<0.2"), ("0.9.3", ">=0.9,<0.10"), ("1.0.0", ">=1.0,<2"), ("2.7.1", ">=2.7,<3")],
)
def test_bounds(version: str, bounds: str) -> None:
    assert _bounds(version) == bounds


def test_a_task_and_its_reward_take_few_lines(tmp_path: Path) -> None:
    folder = create("word", "task", tmp_path, PLUGINS).folder
    texts = [(folder / name).read_text() for name in ("pyproject.toml", "src/reasonrl_word/__init__.py")]
    lines = sum(map(code_lines, texts))
    assert lines <= MAX_LINES
    readme = (Path(__file__).resolve().parents[2] / "README.md").read_text(encoding="utf-8")
    assert f"{lines} lines of code and TOML for a task and its reward" in readme


@pytest.mark.parametrize("name", ["Word", "9lives", "", "a b", "a/b", "../up", "word\n", "-x", "word-", "x" * 41])
def test_bad_names_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="expected lower-case letters") as caught:
        create(name, "task", tmp_path, PLUGINS)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "kind", "expected"),
    [
        ("countdown", "task", r"task 'countdown' is provided by countdown \(reasonrl "),
        ("countdown_tinyzero", "task", "reward 'countdown_tinyzero' is provided by"),
        ("countdown_tinyzero", "reward", "reward 'countdown_tinyzero' is provided by"),
        ("reasonrl-ppo", "algorithm", "algorithm 'ppo' is provided by"),
        ("ppo", "rollout_backend", r"plugin ppo \(reasonrl .*is installed; use another name"),
        ("countdown-base", "model", r"model 'countdown-base' is provided by countdown \(reasonrl "),
        ("hf", "observer", r"plugin hf \(reasonrl .*is installed; use another name"),
    ],
)
def test_taken_names_are_refused(name: str, kind: str, expected: str, tmp_path: Path) -> None:
    with pytest.raises(PluginConflictError, match=expected):
        create(name, kind, tmp_path, PLUGINS)


def test_a_folder_that_exists_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "reasonrl-word").mkdir()
    with pytest.raises(RecipeError, match="already exists; use another name or --dir"):
        create("word", "task", tmp_path, PLUGINS)
    (tmp_path / "file").write_text("")
    with pytest.raises(ReasonRLError, match="cannot write"):
        create("word", "task", tmp_path / "file", PLUGINS)


def test_the_command_says_what_to_do_next(tmp_path: Path) -> None:
    arguments = ["plugins", "new", "reasonrl-word-two", "--dir", str(tmp_path)]
    result = CliRunner().invoke(app, arguments, env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.output
    for text in (
        "pip install -e . pytest",
        "reasonrl tasks preview word-two",
        "reasonrl train word_two_smoke",
    ):
        assert text in result.output
    again = CliRunner().invoke(app, arguments)
    assert again.exit_code == 2
    assert again.output.count("\n") == 1
    wrong = CliRunner().invoke(app, [*arguments[:2], "x", "--kind", "hat"])
    assert wrong.exit_code == 2


def test_every_template_belongs_somewhere() -> None:
    found = {path.relative_to(TEMPLATES).parts[0] for path in TEMPLATES.rglob("*.tmpl")}
    assert found == {"common", MULTI_TURN, *KINDS_OFFERED}


def check(*arguments: object, code: int) -> str:
    command = ["plugins", "check", *map(str, arguments)]
    result = CliRunner().invoke(app, command, prog_name="reasonrl", env={"COLUMNS": "80"})
    assert result.exit_code == code, result.output
    return result.output


def test_checking_says_what_it_is_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    folder = create("talks", "task", tmp_path, PLUGINS).folder
    done = CliRunner().invoke(app, ["plugins", "check", str(folder), "--json"])
    assert done.exit_code == 0, done.output
    assert done.stderr.splitlines() == [
        "checking plugin reasonrl_talks ...",
        "checking task talks ...",
        "checking reward talks ...",
    ]
    rows = json.loads(done.stdout)
    assert {"task talks", "reward talks"} <= {row["subject"] for row in rows}


@pytest.mark.parametrize("kind", ["observer", "model", "recipes"])
def test_a_plugin_without_a_component_keeps_its_contracts(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    folder = create(f"kind-of-{kind}", kind, tmp_path, PLUGINS).folder
    done = CliRunner().invoke(app, ["plugins", "check", str(folder), "--json"])
    assert done.exit_code == 0, done.output
    statuses = {row["check"]: row["status"] for row in json.loads(done.stdout)}
    assert statuses["offers_something"] == "ok"
    assert statuses["recipes_are_accepted"] == "ok"
    assert statuses["models_are_there"] == ("ok" if kind == "model" else "not applicable")


def test_a_project_is_checked_before_it_is_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    folder = create("not-installed", "reward", tmp_path, PLUGINS).folder
    text = check(folder, "--task", "countdown", "reward.not-installed.characters=500", code=0)
    assert "plugin reasonrl_not_installed" in text
    assert "reward not-installed" in text
    pyproject = folder / "pyproject.toml"
    pyproject.write_text(pyproject.read_text().replace("reasonrl>=0.1,<0.2", "reasonrl"))
    wanted = "bounds_reasonrl failed reasonrl has no upper bound; add one such as <0.2"
    assert wanted in " ".join(check(folder, code=1).split())
    text = check(folder, "reward.not-installed.characters=0", code=1)
    assert "characters must be >= 1, got 0" in " ".join(text.split())


@pytest.mark.parametrize(
    ("pyproject", "init", "expected"),
    [
        ("[project]\nname = 'x'\n", "", "must have one entry point in group reasonrl, got 0"),
        ("not toml", "", "pyproject.toml: cannot be read"),
        (
            "[project]\nname = 'x'\n[project.entry-points.reasonrl]\nx = 'plugin_of_a_wrong_project'\n",
            "import no_such_module_anywhere",
            "plugin_of_a_wrong_project cannot be imported: ModuleNotFoundError",
        ),
        (
            "[project]\nname = 'x'\n[project.entry-points.reasonrl]\nx = 'plugin_of_no_project:missing'\n",
            "",
            "cannot be imported: ",
        ),
    ],
)
def test_a_project_that_cannot_be_checked_is_one_line(
    pyproject: str, init: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "pyproject.toml").write_text(pyproject)
    (tmp_path / "plugin_of_a_wrong_project.py").write_text(init)
    text = check(tmp_path, code=2)
    assert expected in text
    assert text.count("\n") == 1

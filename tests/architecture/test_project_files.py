"""Files around the code: they parse, agree on the version, and the README's links work away from the repository."""

import importlib.util
import re
import tomllib
from pathlib import Path
from types import ModuleType

import pytest
import yaml

import reasonrl

ROOT = Path(__file__).resolve().parents[2]
ADDRESS = "https://example.org/team/project"


@pytest.fixture(scope="module")
def hooks() -> ModuleType:
    spec = importlib.util.spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_version_is_the_same_everywhere() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert project["version"] == citation["version"] == reasonrl.__version__


def test_workflows_and_forms_parse() -> None:
    files = [*(ROOT / ".github").rglob("*.yml")]
    assert {"ci.yml", "release.yml", "dependabot.yml", "bug.yml"} <= {file.name for file in files}
    assert all(isinstance(yaml.safe_load(file.read_text(encoding="utf-8")), dict) for file in files)


def test_the_readme_is_short_and_its_links_work_on_a_package_index(hooks: ModuleType) -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert text.count("\n") < 150
    assert hooks.absolute_links(text, "") == text
    shown = hooks.absolute_links(text, ADDRESS)
    relative = re.findall(r"\]\((?!https?:|#)([^)]+)\)", text)
    assert len(relative) > 10
    assert not re.findall(r"\]\((?!https?:|#)([^)]+)\)", shown)
    assert f"({ADDRESS}/raw/main/docs/assets/learning.svg)" in shown
    assert f"({ADDRESS}/blob/main/docs/get-started.md)" in shown
    assert hooks.project_links("") == {}
    assert hooks.project_links(ADDRESS)["Repository"] == ADDRESS


def test_every_task_of_the_contributors_page_exists() -> None:
    tasks = set(re.findall(r"^([a-z]+)(?: [^:\n]*)?:", (ROOT / "justfile").read_text(encoding="utf-8"), re.MULTILINE))
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`just ([a-z]+)", page))
    assert named <= tasks
    assert tasks - named == {"default"}

"""The generated reference is that of this code, and complete."""

import inspect
import re
import shutil
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

from reasonrl.contracts.hookspecs import ReasonRLSpecs
from reasonrl.contracts.metric_keys import CORE_METRICS
from reasonrl.plugins import load_plugins
from reasonrl.plugins.directory import read_directory
from reasonrl.testing import assert_all_hold, check_plugin

ROOT = Path(__file__).resolve().parents[2]
REFERENCE = ROOT / "docs" / "reference"


def page(name: str) -> str:
    return (REFERENCE / name).read_text(encoding="utf-8")


def test_the_reference_is_up_to_date(gen_docs: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    status = gen_docs.main(["--check"])
    assert status == 0, capsys.readouterr().err


@pytest.mark.slow
def test_a_stale_page_is_noticed_and_rewritten(
    gen_docs: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(ROOT / "docs" / "algorithms", tmp_path / "algorithms")
    monkeypatch.setattr(gen_docs, "DOCS", tmp_path)
    assert gen_docs.main(["--check"]) == 1
    assert "docs/reference/cli.md is out of date" in capsys.readouterr().err
    assert gen_docs.main([]) == 0
    assert gen_docs.main(["--check"]) == 0
    (tmp_path / "reference" / "metrics.md").write_text("old", encoding="utf-8")
    assert gen_docs.main(["--check"]) == 1


def test_every_metric_and_every_option_stands_there() -> None:
    plugins = load_plugins(environ={"REASONRL_PLUGINS": "reasonrl"})
    metrics, config = page("metrics.md"), page("config.md")
    for definition in CORE_METRICS:
        assert f"| `{definition.key}` | " in metrics
    for kind in ("task", "reward", "algorithm", "rollout_backend"):
        for spec in plugins.specs(kind):
            assert f"## {kind.replace('_', ' ').capitalize()} `{spec.name}`" in config
            for definition in spec.metrics:
                assert f"| `{definition.key}` | " in metrics


def test_no_option_is_without_help() -> None:
    for line in page("config.md").splitlines():
        if line.startswith("| `"):
            assert line.split(" | ")[-1].removesuffix(" |").strip(), line


def test_defaults_are_shown_as_yaml_has_them() -> None:
    config = page("config.md")
    assert "| `seed` | int | `0` | " in config
    assert "| `minibatches` | int | `1` | " in config
    assert "| `gradient_checkpointing` | true or false | `false` | " in config
    assert "| `learning_rate` | number or null | `null` | " in config


HOOKS = [name for name in vars(ReasonRLSpecs) if name.startswith("reasonrl_")]
HOOKS_PAGE = (ROOT / "docs" / "hooks.md").read_text(encoding="utf-8")


def signature(name: str) -> str:
    """``def name(arguments) -> type: ...`` as a plugin writes it: without ``self``, with short type names."""
    full = inspect.signature(getattr(ReasonRLSpecs, name))
    own = full.replace(parameters=[p for key, p in full.parameters.items() if key != "self"])
    shown = str(own)
    for module in ("collections.abc.", "reasonrl.contracts.data.", "reasonrl.contracts.specs."):
        shown = shown.replace(module, "")
    return f"def {name}{shown}: ..."


@pytest.mark.parametrize("hook", HOOKS)
def test_every_hook_is_shown_with_its_exact_signature_and_an_example_that_loads(
    hook: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    section = HOOKS_PAGE.partition(f"\n## {hook}\n")[2].partition("\n## ")[0]
    assert f"```pyi\n{signature(hook)}\n```" in section
    (example,) = re.findall(r"^```python\n(.*?)^```$", section, flags=re.MULTILINE | re.DOTALL)
    file = tmp_path / f"example_of_{hook}.py"
    file.write_text(example, encoding="utf-8")
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    plugins = load_plugins(files=[str(file)], environ={"REASONRL_PLUGINS": ""})
    (record,) = [r for r in plugins.records if r.distribution == "--plugin"]
    assert record.status == "active"
    assert hook in record.hooks
    if hook in ("reasonrl_tasks", "reasonrl_rewards", "reasonrl_algorithms"):
        assert_all_hold(check_plugin(record.name, plugins=plugins))


def test_the_hooks_page_lists_them_all() -> None:
    assert re.findall(r"^\| \[(\w+)\]\(#\1\)", HOOKS_PAGE, flags=re.MULTILINE) == HOOKS


@pytest.mark.parametrize("folder", sorted((ROOT / "plugins").glob("*/src")), ids=lambda path: path.parent.name)
def test_the_directory_says_what_each_distribution_offers(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (package,) = folder.iterdir()
    monkeypatch.syspath_prepend(folder)
    plugins = load_plugins(files=[f"{package.name}.plugin"], environ={"REASONRL_PLUGINS": ""})
    (record,) = [r for r in plugins.records if r.distribution == "--plugin"]
    (entry,) = [e for e in read_directory() if e["distribution"] == folder.parent.name]
    offered = [f"{kind} {name}" for kind, names in entry["offers"].items() for name in names]
    assert sorted(record.provides) == sorted(offered)
    assert f"pip install -e plugins/{folder.parent.name}" in entry["install"]


def test_the_directory_names_every_distribution_of_this_repository() -> None:
    projects = [tomllib.loads(p.read_text())["project"] for p in (ROOT / "plugins").glob("*/pyproject.toml")]
    for project in projects:
        assert f"| `{project['name']}` | " in page("plugins.md")


RECIPES = sorted([*(ROOT / "recipes").rglob("*.yaml"), *(ROOT / "plugins").glob("*/src/*/recipes/*.yaml")])


def test_the_gallery_shows_every_recipe_and_no_result_that_was_not_measured() -> None:
    rows = {line.split("`")[1]: line for line in page("recipes.md").splitlines() if line.startswith("| `")}
    for path in RECIPES:
        source = path.read_text(encoding="utf-8")
        name = re.search(r"^name: (\S+)", source, re.MULTILINE)
        assert name is not None
        row = rows.pop(name[1])
        assert ("%" in row) == ("Measured: held_out" in source), row
        assert ("Not run yet." in row) == ("Not yet run" in source), row
    assert not rows

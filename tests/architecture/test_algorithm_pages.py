"""Each algorithm has a page, and each public formula an entry in the table: paper, function, oracle, tests, recipe."""

import importlib
import inspect
import re
import shutil
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from reasonrl import AlgorithmSpec
from reasonrl.plugins import load_plugins

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "docs" / "algorithms"
MODULES = ("surrogate", "group", "gae", "kl", "aggregate", "correction")
"""Those of ``reasonrl.functional`` whose public functions are losses and estimators."""
SPECS: dict[str, AlgorithmSpec] = {
    spec.name: spec for spec in load_plugins(environ={"REASONRL_PLUGINS": "reasonrl"}).specs("algorithm")
}
SECTIONS = ["Options", "When to use it", "Bias and pitfalls", "Paper, code and tests"]


def missing(functions: Iterable[str]) -> set[str]:
    """Public losses and estimators, as ``module:name``, that are not among ``functions``."""
    public = set()
    for name in MODULES:
        module = importlib.import_module(f"reasonrl.functional.{name}")
        own = inspect.getmembers(module, lambda value: inspect.isfunction(value))
        public |= {
            f"{module.__name__}:{key}" for key, value in own if value.__module__ == module.__name__ and key[0] != "_"
        }
    assert len(public) > 15
    return public - set(functions)


def test_every_public_loss_and_estimator_is_in_the_table(formulas: ModuleType) -> None:
    entries = formulas.read()
    assert not missing(entry.function for entry in entries)
    assert all(entry.oracle for entry in entries if entry.module.startswith("reasonrl."))


def test_a_function_without_an_entry_is_noticed(formulas: ModuleType) -> None:
    functions = {entry.function for entry in formulas.read()}
    for left_out in functions:
        is_watched = left_out.startswith(tuple(f"reasonrl.functional.{module}:" for module in MODULES))
        assert missing(functions - {left_out}) == ({left_out} if is_watched else set())


@pytest.mark.parametrize("name", SPECS)
def test_every_algorithm_has_a_page_in_the_same_form(name: str) -> None:
    page = (FOLDER / f"{name}.md").read_text(encoding="utf-8")
    assert re.findall(r"^## (.+)$", page, flags=re.MULTILINE) == SECTIONS
    assert "```math\n" in page.partition("## Options")[0]
    assert f"[`{name}`]({name}.md)" in (FOLDER / "index.md").read_text(encoding="utf-8")


def test_every_page_is_that_of_an_algorithm() -> None:
    assert {page.stem for page in FOLDER.glob("*.md")} == {"index", *SPECS}


@pytest.mark.parametrize("name", SPECS)
def test_the_table_names_the_papers_of_the_plugin(name: str, formulas: ModuleType) -> None:
    (entry,) = [entry for entry in formulas.read() if entry.function == SPECS[name].factory]
    assert [paper.partition(",")[0] for paper in entry.paper] == list(SPECS[name].papers)


@pytest.mark.parametrize("name", SPECS)
def test_every_option_is_on_the_page(name: str) -> None:
    page = (FOLDER / f"{name}.md").read_text(encoding="utf-8")
    for option in SPECS[name].config.__dataclass_fields__:
        assert f"| `{option}" in page


GOOD: dict[str, Any] = {
    "formula": "gae",
    "function": "reasonrl.functional.gae:gae",
    "tests": ["unit/test_functional_golden.py::test_gae_by_hand"],
    "paper": "arXiv:1506.02438, eq. 16",
    "oracle": "gae.gae_row",
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"function": "reasonrl.functional.gae:gea"}, "gae: there is no function reasonrl.functional.gae:gea"),
        ({"function": "reasonrl.functional.eag:gae"}, "there is no function reasonrl.functional.eag:gae"),
        ({"oracle": "gae.gae"}, "there is no oracle gae.gae in tests/reference"),
        ({"oracle": "nothing.gae_row"}, "there is no oracle nothing.gae_row"),
        ({"tests": ["unit/test_functional_golden.py::test_gae"]}, "there is no test unit/test_functional_golden.py"),
        (
            {"tests": ["unit/test_functional_silver.py::test_gae_by_hand"]},
            "there is no test unit/test_functional_silver",
        ),
        ({"tests": []}, "it names no test"),
        ({"paper": "1506.02438"}, "paper '1506.02438' is not of the form 'arXiv:ID, where'"),
        ({"recipe": "countdown_ppo"}, "expected formula, function and tests, perhaps paper and oracle"),
    ],
)
def test_an_entry_that_names_what_does_not_exist_is_refused(
    change: dict[str, Any], message: str, formulas: ModuleType, tmp_path: Path
) -> None:
    source = tmp_path / "formulas.yaml"
    source.write_text(yaml.safe_dump([GOOD]), encoding="utf-8")
    assert [entry.name for entry in formulas.read(source)] == ["gae"]
    source.write_text(yaml.safe_dump([GOOD | change]), encoding="utf-8")
    with pytest.raises(ValueError, match=re.escape(message)):
        formulas.read(source)


def rewritten(gen_docs: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the documentation that ``gen_docs`` writes to."""
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    monkeypatch.setattr(gen_docs, "DOCS", tmp_path / "docs")
    assert gen_docs.main(["--check"]) == 0
    return tmp_path / "docs" / "algorithms"


@pytest.mark.slow
def test_a_changed_option_makes_the_page_stale(
    gen_docs: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = rewritten(gen_docs, tmp_path, monkeypatch) / "cispo.md"
    good = page.read_text(encoding="utf-8")
    page.write_text(good.replace("| `5.0` |", "| `4.0` |"), encoding="utf-8")
    assert gen_docs.main(["--check"]) == 1
    assert "docs/algorithms/cispo.md is out of date" in capsys.readouterr().err
    assert gen_docs.main([]) == 0
    assert page.read_text(encoding="utf-8") == good


@pytest.mark.slow
def test_a_missing_page_mark_entry_or_recipe_is_named(
    gen_docs: ModuleType,
    formulas: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = rewritten(gen_docs, tmp_path, monkeypatch)
    page = (folder / "rloo.md").read_text(encoding="utf-8")
    (folder / "rloo.md").write_text(page.replace("<!-- generated: proof -->", ""), encoding="utf-8")
    assert gen_docs.main(["--check"]) == 1
    assert "docs/algorithms/rloo.md: expected once each" in capsys.readouterr().err
    (folder / "rloo.md").unlink()
    assert gen_docs.main(["--check"]) == 1
    assert "docs/algorithms/rloo.md is missing" in capsys.readouterr().err

    monkeypatch.setattr(
        formulas, "recipes", lambda name: [] if name == "rloo" else [Path("recipes/countdown_ppo.yaml")]
    )
    assert gen_docs.main(["--check"]) == 1
    assert "no recipe below recipes/ has algorithm: {name: rloo}" in capsys.readouterr().err
    entries = [entry for entry in formulas.read() if entry.name != "RLOO"]
    monkeypatch.setattr(formulas, "read", lambda: entries)
    assert gen_docs.main(["--check"]) == 1
    assert "no entry with an oracle for reasonrl_critic_free.algorithm:RLOO" in capsys.readouterr().err


def test_a_page_lists_what_the_algorithm_calls_and_nothing_that_it_overrides(formulas: ModuleType) -> None:
    from reasonrl_critic_free.algorithm import RLOO, DrGRPO, ReinforcePPBaseline

    used = formulas.uses(DrGRPO)
    assert {"group_advantages", "clipped_surrogate", "constant_length_share", "kl_loss"} <= used
    assert not {"token_mean_share", "weighted_surrogate", "masked_whiten"} & used
    assert {"weighted_surrogate", "constant_length_share"} <= formulas.uses(RLOO)
    assert {"masked_whiten", "group_advantages"} <= formulas.uses(ReinforcePPBaseline), "through super()"


def test_recipes_are_found_by_their_algorithm(formulas: ModuleType) -> None:
    assert [path.name for path in formulas.recipes("ppo")] == ["countdown_ppo.yaml", "1.5b_ppo.yaml"]
    assert formulas.recipes("reinforce_pp") == [Path("recipes/algorithms/countdown_reinforce_pp.yaml")]

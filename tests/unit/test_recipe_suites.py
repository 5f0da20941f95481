"""Suites switched off: all or one, in the file, by extends and by override."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from reasonrl.errors import RecipeError
from reasonrl.plugins import Plugins, load_plugins
from reasonrl.recipe.load import load_recipe
from reasonrl.recipe.notes import notes
from reasonrl.recipe.resolved import AnyResolved
from reasonrl.recipe.suites import SuiteConfig

ROOT = """\
name: r
model: {name: countdown-base}
task: {name: countdown}
algorithm: {name: grpo}
sampling: {group_size: 2}
trainer: {steps: 1, prompts_per_step: 2}
"""
SUITES = "evaluation: {every: 3, suites: {held_out: {problems: 8}, greedy: {temperature: 0.0}}}\n"
OFF = [("null", []), ("{}", []), ("{greedy: null}", ["held_out"]), ("{held_out: null, greedy: null}", [])]


@pytest.fixture(scope="module")
def plugins() -> Plugins:
    return load_plugins(environ={"REASONRL_PLUGINS": "reasonrl"})


def load(folder: Path, plugins: Plugins, root: str, child: str = "", *overrides: str) -> AnyResolved:
    (folder / "root.yaml").write_text(ROOT + root)
    (folder / "child.yaml").write_text(f"extends: root.yaml\n{child}")
    return load_recipe(folder / "child.yaml", overrides, plugins)


@pytest.mark.parametrize(("suites", "left"), OFF)
def test_suites_are_switched_off(suites: str, left: list[str], tmp_path: Path, plugins: Plugins) -> None:
    by_parent = load(tmp_path, plugins, SUITES, f"evaluation: {{suites: {suites}}}\n")
    by_override = load(tmp_path, plugins, SUITES, "", f"evaluation.suites={suites}")
    for resolved in (by_parent, by_override):
        assert list(resolved.suites) == left
        assert resolved.recipe.evaluation.every == 3
        (tmp_path / "kept.yaml").write_text(resolved.source_yaml)
        assert list(load_recipe(tmp_path / "kept.yaml", [], plugins).suites) == left


@pytest.mark.parametrize("suites", ["null", "{}"])
def test_a_recipe_may_have_none_of_its_own(suites: str, tmp_path: Path, plugins: Plugins) -> None:
    assert not load(tmp_path, plugins, f"evaluation: {{every: 3, suites: {suites}}}\n").suites


def test_one_suite_by_its_key(tmp_path: Path, plugins: Plugins) -> None:
    assert list(load(tmp_path, plugins, SUITES, "", "evaluation.suites.greedy=null").suites) == ["held_out"]
    both = ("evaluation.suites.greedy=null", "evaluation.suites.held_out=null")
    assert not load(tmp_path, plugins, SUITES, "", *both).suites
    again = ("evaluation.suites=null", "evaluation.suites.quick.problems=4")
    assert list(load(tmp_path, plugins, SUITES, "", *again).suites) == ["quick"]


@pytest.mark.parametrize(
    ("root", "child", "override", "said"),
    [
        (SUITES, "", "evaluation.suites.gredy=null", "override 'evaluation.suites.gredy=null': evaluation."),
        (SUITES, "evaluation: {suites: {gredy: null}}\n", "", "child.yaml:2: evaluation.suites.gredy: no such suite"),
        (
            "evaluation: {suites: {gredy: null, greedy: {}}}\n",
            "",
            "",
            "root.yaml:7: evaluation.suites.gredy:",
        ),
        ("", "", "evaluation.suites.greedy=null", "no such suite to disable; suites: none"),
    ],
)
def test_a_suite_that_is_not_there_is_not_switched_off(
    root: str, child: str, override: str, said: str, tmp_path: Path, plugins: Plugins
) -> None:
    with pytest.raises(RecipeError) as caught:
        load(tmp_path, plugins, root, child, *filter(None, [override]))
    assert said in str(caught.value)
    if "gredy" in override + child + root:
        assert "did you mean 'greedy'?" in str(caught.value)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("evaluation.suites=[1]", "evaluation.suites must be a mapping of names, got [1]"),
        ("evaluation.suites.greedy=4", "evaluation.suites.greedy must be a mapping of keys, got 4"),
        ("evaluation=null", "evaluation must be a mapping of keys, got null"),
        ("model.lora=true", "model.lora must be a mapping of keys, got true"),
        ("critic=3", "critic must be a mapping of keys, got 3"),
    ],
)
def test_no_message_names_a_class(override: str, said: str, tmp_path: Path, plugins: Plugins) -> None:
    with pytest.raises(RecipeError) as caught:
        load(tmp_path, plugins, SUITES, "", override)
    assert said in str(caught.value)
    assert "Config" not in str(caught.value)


def test_an_empty_mapping_replaces(tmp_path: Path, plugins: Plugins) -> None:
    changed = load(tmp_path, plugins, "optimizer: {learning_rate: 0.5}\n", "optimizer: {}\n")
    assert changed.recipe.optimizer.learning_rate == 1e-6
    default = load(tmp_path, plugins, "rewards: {countdown_tinyzero: {}}\n", "", "rewards={}")
    assert list(default.rewards) == ["countdown"]


def test_without_suites_keep_best_has_nothing_to_compare(tmp_path: Path, plugins: Plugins) -> None:
    assert list(notes(load(tmp_path, plugins, ""))) == [
        "no evaluation: the recipe has no suites; checkpoint.keep_best has no effect"
    ]
    off = load(tmp_path, plugins, "", "", "checkpoint.keep_best=false")
    assert list(notes(off)) == ["no evaluation: the recipe has no suites"]
    assert not list(notes(load(tmp_path, plugins, SUITES)))


@pytest.mark.parametrize(
    ("suite", "message"),
    [
        ("{top_p: 0.0}", "top_p must be in (0, 1], got 0.0"),
        ("{top_p: 1.5}", "top_p must be in (0, 1], got 1.5"),
        ("{top_k: 0}", "top_k must be >= 1, got 0"),
        ("{temperature: 0.0, top_p: 0.9}", "top_p and top_k have no effect with temperature 0"),
        ("{samples: 4, pass_at: [1, 8]}", "pass_at must be different numbers from 1 to samples (4), got [1, 8]"),
        ("{samples: 4, pass_at: [2, 2]}", "pass_at must be different numbers from 1 to samples (4), got [2, 2]"),
    ],
)
def test_sampling_that_cannot_be(suite: str, message: str, tmp_path: Path, plugins: Plugins) -> None:
    with pytest.raises(RecipeError, match=re.escape(message)):
        load(tmp_path, plugins, f"evaluation: {{suites: {{x: {suite}}}}}\n")


def test_the_k_of_a_suite() -> None:
    assert SuiteConfig().ks == []
    assert SuiteConfig(samples=8).ks == [8]
    assert SuiteConfig(samples=8, pass_at=[8, 1, 4]).ks == [1, 4, 8]


@pytest.mark.parametrize("kind", ["top_p: 0.9", "top_k: 5"])
@pytest.mark.parametrize("sft", [False, True])
def test_a_backend_that_cannot_truncate_is_refused(kind: str, sft: bool, tmp_path: Path, plugins: Plugins) -> None:
    """Rather than to sample from all tokens in silence."""
    own = plugins.provided["rollout_backend", "hf"][0]
    plain = replace(own, spec=replace(own.spec, truncates=False))
    limited = replace(plugins, provided={**plugins.provided, ("rollout_backend", "hf"): [plain]})
    root = "name: r\nmodel: {name: countdown-base}\ntask: {name: countdown}\nsft: {max_tokens: 9}\n" if sft else ROOT
    (tmp_path / "r.yaml").write_text(f"{root}evaluation: {{suites: {{x: {{{kind}}}}}}}\n")
    message = f"evaluation.suites.x.{kind[:5]}: rollout backend hf always samples from all tokens; remove {kind[:5]}"
    with pytest.raises(RecipeError, match=re.escape(message)):
        load_recipe(tmp_path / "r.yaml", [], limited)
    assert load_recipe(tmp_path / "r.yaml", [], plugins).suites["x"].config.is_truncated


@pytest.mark.parametrize("key", ["top_p", "top_k"])
def test_training_samples_from_all_tokens(key: str, tmp_path: Path, plugins: Plugins) -> None:
    with pytest.raises(RecipeError, match=f"sampling.{key}: unknown key"):
        load(tmp_path, plugins, "", "", f"sampling.{key}=1")

"""How recipes are put together: extends, overrides, slots, the environment, and what is kept of them."""

import json
from pathlib import Path

import pytest
from support.toy_plugin import AlgorithmConfig, BackendConfig, Nested, ToyConfig

from reasonrl import Needs
from reasonrl.plugins import Plugins, load_plugins
from reasonrl.recipe.load import check_recipe, load_recipe
from reasonrl.recipe.render import render_plain
from reasonrl.recipe.resolved import ResolvedRecipe, ResolvedSft
from reasonrl.recipe.sampling import SamplingConfig
from reasonrl.recipe.source import read_source
from reasonrl.redact import FROM_ENVIRONMENT

PARENT = """\
name: parent
model: {name: toy-base}
task: {name: toy, high: 7, words: [a, b]}
algorithm: {name: plain, clip_eps: 0.3, nested: {coef: 0.5}}
sampling: {group_size: 2, temperature: 0.5}
rollout_backend: {name: backend, rows: 9}
trainer: {steps: 3, prompts_per_step: 4}
evaluation:
  suites:
    held_out: {problems: 4, temperature: 0}
"""


@pytest.fixture(scope="module")
def plugins() -> Plugins:
    return load_plugins(files=["support.toy_plugin"], environ={"REASONRL_PLUGINS": ""})


def load(tmp_path: Path, plugins: Plugins, *overrides: str, child: str = "") -> ResolvedRecipe:
    (tmp_path / "parent.yaml").write_text(PARENT)
    (tmp_path / "child.yaml").write_text(f"extends: parent.yaml\n{child}")
    resolved = load_recipe(tmp_path / "child.yaml", overrides, plugins)
    assert isinstance(resolved, ResolvedRecipe)
    return resolved


def test_every_slot_becomes_its_own_config(tmp_path: Path, plugins: Plugins) -> None:
    resolved = load(tmp_path, plugins)
    assert resolved.task.config == ToyConfig(high=7, words=["a", "b"])
    assert resolved.algorithm.config == AlgorithmConfig(clip_eps=0.3, nested=Nested(coef=0.5))
    assert resolved.rollout_backend.config == BackendConfig(rows=9)
    assert resolved.recipe.sampling == SamplingConfig(group_size=2, temperature=0.5)
    assert resolved.needs == Needs()
    assert Path(resolved.model_path).is_dir()


def test_rewards_default_to_the_tasks(tmp_path: Path, plugins: Plugins) -> None:
    resolved = load(tmp_path, plugins)
    assert {name: r.weight for name, r in resolved.rewards.items()} == {"toy_reward": 1.0}
    weighted = load(tmp_path, plugins, child="rewards: {toy_reward: {weight: 0.25}}\n")
    assert weighted.rewards["toy_reward"].weight == 0.25
    back = load(tmp_path, plugins, "rewards=null", child="rewards: {toy_reward: {weight: 0.25}}\n")
    assert back.rewards["toy_reward"].weight == 1.0


def test_child_wins_key_by_key(tmp_path: Path, plugins: Plugins) -> None:
    resolved = load(tmp_path, plugins, child="name: child\nsampling: {group_size: 8}\ntask: {words: [c]}\n")
    assert resolved.recipe.name == "child"
    assert resolved.recipe.sampling == SamplingConfig(group_size=8, temperature=0.5)
    assert resolved.task.config == ToyConfig(high=7, words=["c"])


def test_chain_of_three(tmp_path: Path, plugins: Plugins) -> None:
    load(tmp_path, plugins, child="seed: 1\nname: child\n")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "last.yaml").write_text("extends: ../child.yaml\nseed: 2\n")
    resolved = load_recipe(tmp_path / "sub" / "last.yaml", [], plugins)
    assert (resolved.recipe.name, resolved.recipe.seed) == ("child", 2)


@pytest.mark.parametrize("how", [{"child": "algorithm: {name: grouped}\n"}, {"overrides": ["algorithm.name=grouped"]}])
def test_slot_with_another_name_inherits_nothing(how: dict, tmp_path: Path, plugins: Plugins) -> None:
    resolved = load(tmp_path, plugins, *how.get("overrides", []), child=how.get("child", ""))
    assert resolved.algorithm.name == "grouped"
    assert resolved.algorithm.config == AlgorithmConfig()
    assert resolved.needs.min_group_size == 2


def test_slot_with_the_same_name_inherits(tmp_path: Path, plugins: Plugins) -> None:
    resolved = load(tmp_path, plugins, child="algorithm: {name: plain, mode: b}\n")
    assert resolved.algorithm.config == AlgorithmConfig(clip_eps=0.3, mode="b", nested=Nested(coef=0.5))


@pytest.mark.parametrize("order", [1, -1])
def test_a_changed_name_does_not_clear_other_overrides(order: int, tmp_path: Path, plugins: Plugins) -> None:
    resolved = load(tmp_path, plugins, *["algorithm.name=grouped", "algorithm.clip_eps=0.1"][::order])
    assert resolved.algorithm.config == AlgorithmConfig(clip_eps=0.1)


def test_model_path_replaces_name_and_back(tmp_path: Path, plugins: Plugins) -> None:
    resolved = load(tmp_path, plugins, "model.path=org/some-model")
    assert resolved.recipe.model.name is None
    assert resolved.model_path == "org/some-model"
    again = load(tmp_path, plugins, "model.name=toy-base", child="model: {path: org/some-model}\n")
    assert again.recipe.model.path is None


def test_null_removes_a_section(tmp_path: Path, plugins: Plugins) -> None:
    child = "algorithm: {name: critical}\ncritic: {kind: shared, learning_rate: 1e-3}\n"
    resolved = load(tmp_path, plugins, child=child)
    assert resolved.recipe.critic is not None
    assert resolved.recipe.critic.learning_rate == 1e-3
    assert load(tmp_path, plugins, "critic=null", "algorithm.name=plain", child=child).recipe.critic is None


@pytest.mark.parametrize(
    ("override", "section", "key", "value"),
    [
        ("optimizer.learning_rate=3e-5", "optimizer", "learning_rate", 3e-5),
        ("optimizer.learning_rate=1", "optimizer", "learning_rate", 1.0),
        ("sampling.stop=[</answer>, 'b c']", "sampling", "stop", ["</answer>", "b c"]),
        ("sampling.stop=['a=b']", "sampling", "stop", ["a=b"]),
        ("model.gradient_checkpointing=true", "model", "gradient_checkpointing", True),
        ("model.revision='123'", "model", "revision", "123"),
        ("logging.trackers=[wandb]", "logging", "trackers", ["wandb"]),
    ],
)
def test_override_values_are_yaml(
    override: str, section: str, key: str, value: object, tmp_path: Path, plugins: Plugins
) -> None:
    found = getattr(getattr(load(tmp_path, plugins, override).recipe, section), key)
    assert found == value
    assert type(found) is type(value)


def test_suite_with_another_task_has_that_tasks_rewards(tmp_path: Path, plugins: Plugins) -> None:
    child = "evaluation: {suites: {wide: {problems: 2, task: {name: toy, high: 99}}}}\n"
    suites = load(tmp_path, plugins, child=child).suites
    assert list(suites) == ["held_out", "wide"]
    assert suites["held_out"].task.config.high == 7
    assert suites["wide"].task.config == ToyConfig(high=99)
    assert list(suites["wide"].rewards) == ["toy_reward"]


def test_saved_text_gives_the_same_recipe(tmp_path: Path, plugins: Plugins) -> None:
    resolved = load(tmp_path, plugins, "seed=5", "optimizer.learning_rate=1e-6", child="name: child\n")
    (tmp_path / "saved.yaml").write_text(resolved.source_yaml)
    again = load_recipe(tmp_path / "saved.yaml", [], plugins)
    assert again.recipe == resolved.recipe
    assert isinstance(again, ResolvedRecipe)
    assert again.algorithm.config == resolved.algorithm.config
    assert again.source_yaml == resolved.source_yaml


def test_environment_is_read_but_not_kept(tmp_path: Path, plugins: Plugins, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REASONRL_TEST_TOKEN", "canary")
    monkeypatch.setenv("REASONRL_TEST_ROWS", "12")
    child = (
        "output_dir: out-${oc.env:REASONRL_TEST_TOKEN}\ntask: {token: '${oc.env:REASONRL_TEST_TOKEN}'}\n"
        "rollout_backend: {rows: '${oc.env:REASONRL_TEST_ROWS}'}\nname: ${oc.env:REASONRL_TEST_UNSET,fallback}\n"
    )
    resolved = load(tmp_path, plugins, child=child)
    assert resolved.recipe.output_dir == "out-canary"
    assert resolved.task.config.token == "canary"
    assert resolved.rollout_backend.config.rows == 12
    assert resolved.recipe.name == "fallback"
    assert "canary" not in resolved.source_yaml
    assert "${oc.env:REASONRL_TEST_TOKEN}" in resolved.source_yaml
    assert "canary" not in json.dumps(render_plain(resolved))


def test_plain_form_shows_defaults_and_hides_the_environment(tmp_path: Path, plugins: Plugins) -> None:
    plain = render_plain(load(tmp_path, plugins, child="task: {token: '${oc.env:HOME}'}\n"))
    assert json.loads(json.dumps(plain)) == plain
    hidden = {"token": FROM_ENVIRONMENT}
    assert plain["task"] == {"name": "toy", "low": 1, "high": 7, "words": ["a", "b"], **hidden}
    assert plain["sampling"]["max_completion_tokens"] == 1024
    assert plain["algorithm"]["nested"] == {"coef": 0.5}
    assert plain["rewards"] == {"toy_reward": {"weight": 1.0}}
    assert plain["evaluation"]["suites"]["held_out"]["task"]["name"] == "toy"


def test_check_accepts_an_backend_that_is_not_installed(tmp_path: Path, plugins: Plugins) -> None:
    load(tmp_path, plugins)
    resolved = check_recipe(tmp_path / "parent.yaml", ["rollout_backend.name=absent"], plugins)
    assert resolved.rollout_backend.name == "absent"


def test_sft_from_a_task_and_from_a_file(tmp_path: Path, plugins: Plugins) -> None:
    text = (
        "name: base\nmodel: {name: toy-base, init: random}\nsft: {max_tokens: 100}\nrollout_backend: {name: backend}\n"
    )
    (tmp_path / "task.yaml").write_text(text + "task: {name: toy}\n")
    from_task = load_recipe(tmp_path / "task.yaml", [], plugins)
    assert isinstance(from_task, ResolvedSft)
    assert from_task.task is not None
    (tmp_path / "data.jsonl").write_text('{"prompt": "a", "completion": "b"}\n')
    (tmp_path / "file.yaml").write_text(f"{text}data: {{path: {tmp_path / 'data.jsonl'}}}\n")
    from_file = load_recipe(tmp_path / "file.yaml", [], plugins)
    assert isinstance(from_file, ResolvedSft)
    assert from_file.task is None
    assert from_file.recipe.data is not None
    assert render_plain(from_file)["task"] is None


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("", "task or data must be set, but not both"),
        ("task: {name: toy}\ndata: {path: x}", "task or data must be set, but not both"),
        ("data: {pth: x}", "data.pth: unknown key; did you mean 'path'?"),
        ("task: {name: toy}\ntrainer: {steps: 1}", "trainer: unknown key"),
        ("task: {name: toy}\nsft: {max_tokens: 0}", "sft.max_tokens must be >= 1, got 0"),
        (
            "task: {name: toy}\nsampling: {group_size: 2}",
            "sampling.group_size has no effect in an SFT recipe",
        ),
        (
            "task: {name: toy}\nlogging: {transcripts_per_step: 1}",
            "transcripts_per_step has no effect in an SFT",
        ),
        (
            "data: {path: $FILE}\nevaluation: {suites: {a: {}}}",
            "evaluation.suites.a.task is missing: this recipe has no task",
        ),
    ],
)
def test_wrong_sft(line: str, expected: str, tmp_path: Path, plugins: Plugins) -> None:
    (tmp_path / "data.jsonl").write_text("{}\n")
    line = line.replace("$FILE", str(tmp_path / "data.jsonl"))
    sft = "" if "sft:" in line else "sft: {max_tokens: 100}\n"
    (tmp_path / "r.yaml").write_text(
        f"name: b\nmodel: {{name: toy-base}}\nrollout_backend: {{name: backend}}\n{sft}{line}\n"
    )
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the text is checked in full below
        load_recipe(tmp_path / "r.yaml", [], plugins)
    assert expected in str(caught.value)


def test_origins_survive_merging(tmp_path: Path, plugins: Plugins) -> None:
    load(tmp_path, plugins, child="sampling: {group_size: 3}\n")
    source = read_source(tmp_path / "child.yaml", ["trainer.steps=9"])
    assert source.where(("sampling", "group_size")) == f"{tmp_path / 'child.yaml'}:2"
    assert source.where(("sampling", "temperature")) == f"{tmp_path / 'parent.yaml'}:5"
    assert source.where(("trainer", "steps")) == "override 'trainer.steps=9'"
    assert source.where(("trainer", "prompts_per_step")) == f"{tmp_path / 'parent.yaml'}:7"
    assert source.is_extended


SHIPPED = sorted((Path(__file__).parents[2] / "recipes").rglob("*.yaml"))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_recipes_resolve(path: Path) -> None:
    bundled = load_plugins(environ={"REASONRL_PLUGINS": "reasonrl"})
    resolved = check_recipe(path, [], bundled)
    assert resolved.recipe.name
    assert path.read_text().startswith("#"), "a recipe begins with its hardware and how to start it"


def test_packaged_recipe_by_name() -> None:
    bundled = load_plugins(environ={"REASONRL_PLUGINS": "reasonrl"})
    names = [spec.name for spec in bundled.specs("recipe")]
    assert {"countdown_ppo", "countdown_grpo", "countdown_base_sft"} <= set(names)
    assert all(check_recipe(name, [], bundled).recipe for name in names)

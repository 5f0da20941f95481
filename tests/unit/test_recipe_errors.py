"""Every way to get a recipe wrong: one line, the place, the key path, and what to do instead."""

import re
from pathlib import Path

import pytest

from reasonrl.errors import PluginError, ReasonRLError, RecipeError
from reasonrl.plugins import Plugins, load_plugins
from reasonrl.recipe.load import load_recipe

GOOD = """\
name: good
model: {name: toy-base}
task: {name: toy, high: 7}
algorithm: {name: plain}
sampling: {group_size: 2}
rollout_backend: {name: backend}
trainer: {steps: 3, prompts_per_step: 4}
evaluation:
  suites:
    held_out: {problems: 4}
"""

# The text that replaces a line of GOOD (found by its first word), then what the message must hold.
WRONG_LINES = [
    ("sampling: {group_sise: 2}", "r.yaml:5: sampling.group_sise: unknown key; did you mean 'group_size'?"),
    ("sampling: {group_size: four}", "r.yaml:5: sampling.group_size must be an integer, got 'four'"),
    ("sampling: {group_size: 2.5}", "sampling.group_size must be an integer, got 2.5"),
    ("sampling: {group_size: true}", "sampling.group_size must be an integer, got true"),
    ("sampling: {group_size: null}", "sampling.group_size must be an integer, got null"),
    ("sampling: {group_size: '2'}", "sampling.group_size must be an integer, got '2'"),
    ("sampling: {group_size: [2]}", "sampling.group_size must be an integer, got [2]"),
    ("sampling: {group_size: 0}", "r.yaml:5: sampling.group_size must be >= 1, got 0"),
    ("sampling: {temperature: 0}", "sampling.temperature must be in [0.001, 1000], got 0"),
    ("sampling: {temperature: .nan}", "sampling.temperature must be in [0.001, 1000], got nan"),
    ("sampling: {temperature: .inf}", "sampling.temperature must be in [0.001, 1000], got inf"),
    ("sampling: {stop: done}", "sampling.stop must be a list, each item text (quote it), got 'done'"),
    ("sampling: {stop: [1]}", "sampling.stop must be a list, each item text (quote it), got [1]"),
    ("sampling: {stop: [null]}", "sampling.stop must be a list"),
    ("sampling: {stop: ['']}", "sampling.stop must be a list of non-empty strings"),
    ("sampling: 3", "r.yaml:5: sampling must be a mapping of keys, got 3"),
    ("sampling: [a]", "sampling must be a mapping of keys, got"),
    ("sampling: null", "sampling must be"),
    ("sampling: {clip_eps: 0.1}", "sampling.clip_eps: unknown key; 'clip_eps' belongs in algorithm"),
    ("sampling: {steps: 1}", "'steps' belongs in trainer"),
    ("sampling: {zzz: 1}", "sampling.zzz: unknown key; known: group_size, max_completion_tokens"),
    ("name: [1]", "r.yaml:1: name must be text"),
    ("name: 3", "r.yaml:1: name must be text (quote it), got 3"),
    ("name: a/b", "r.yaml:1: name must be a name like"),
    ("name: ../up", "name must be a name like"),
    ("name: .hidden", "name must be a name like"),
    ("name: good\nseed: -1", "r.yaml:2: seed must be in [0, 2**63), got -1"),
    ("name: good\nnmae: x", "r.yaml:2: nmae: unknown key; did you mean 'name'?"),
    ("name: good\nlr: 1", "r.yaml:2: lr: unknown key; known: "),
    ("name: good\nlearning_rate: 1", "'learning_rate' belongs in critic or optimizer"),
    ("name: good\nname: bad", "r.yaml:2: duplicate key 'name', first on line 1"),
    ("name: good\n3: x", "3: a key must be text, got 3; quote it"),
    ("name: '???'", "r.yaml:1: name has no value"),
    (
        "name: ${oc.env:REASONRL_TEST_UNSET}",
        "name must be text (quote it), got '${oc.env:REASONRL_TEST_UNSET}'",
    ),
    ("name: ${seed}", "name: only ${oc.env:NAME} can be interpolated, got '${seed}'"),
    ("name: ${oc.decode:x}", "only ${oc.env:NAME} can be interpolated"),
    ("name: '${'", "r.yaml"),
    (
        "name: !!python/object/apply:os.system [id]",
        "r.yaml:1: not valid YAML for a recipe: the tag",
    ),
    ("name: !custom x", "not valid YAML for a recipe: the tag"),
    ("name: {a: b", "r.yaml:2: not valid YAML"),
    ("name: *nobody", "r.yaml:1: not valid YAML: found undefined alias"),
    ("name: good\n\tseed: 1", "not valid YAML"),
    ("model: {nam: toy-base}", "model.nam: unknown key; did you mean 'name'?"),
    ("model: {}", "r.yaml:2: model.path or name must be set, but not both"),
    ("model: {name: toy-base, path: x}", "model.path or name must be set, but not both"),
    ("model: {name: toy-bas}", "r.yaml:2: model.name: no model 'toy-bas'; did you mean 'toy-base'?"),
    ("model: {name: lost-base}", "model.name: its folder is missing"),
    ("model: {path: ./nowhere}", "r.yaml:2: model.path: no such folder, and not a hub name: './nowhere'"),
    ("model: {path: /nowhere/at/all}", "model.path: no such folder"),
    (
        "model: {name: toy-base, dtype: half}",
        "model.dtype must be one of auto, float32, bfloat16, got 'half'",
    ),
    ("model: {name: toy-base, trust_remote_code: true}", "model.trust_remote_code must be false unless path"),
    (
        "model: {name: toy-base, gradient_checkpointing: 3}",
        "model.gradient_checkpointing must be true or false",
    ),
    (
        "model: {name: toy-base, lora: {rnk: 3}}",
        "r.yaml:2: model.lora.rnk: unknown key; did you mean 'rank'?",
    ),
    ("model: {name: toy-base, lora: {rank: 0}}", "model.lora.rank must be >= 1, got 0"),
    ("model: {name: toy-base, lora: 3}", "model.lora must be a mapping of keys, got 3"),
    ("model: {name: toy-base, revision: 12}", "model.revision must be text (quote it) or null, got 12"),
    ("task: toy", "r.yaml:3: task must be a mapping, got 'toy'"),
    ("task: {high: 3}", "task.name must name a task, got null"),
    ("task: {name: 3}", "task.name must name a task, got 3"),
    ("task: {name: tyo}", "r.yaml:3: task.name: no task 'tyo'; did you mean 'toy'?"),
    ("task: {name: toy_reward}", "task.name: no task 'toy_reward'; 'toy_reward' is a reward, not a task"),
    ("task: {name: plain}", "'plain' is an algorithm, not a task"),
    ("task: {name: toy, hihg: 7}", "r.yaml:3: task.hihg: unknown key for task 'toy'; did you mean 'high'?"),
    ("task: {name: toy, high: x}", "task.high must be an integer, got 'x'"),
    ("task: {name: toy, low: 9, high: 1}", "r.yaml:3: task.low must be <= high, got 9 and 1"),
    ("task: {name: toy, words: 3}", "task.words must be a list"),
    ("task: {name: toy, temperature: 1}", "'temperature' belongs in sampling or evaluation.suites.<name>"),
    ("task: {name: bare}", "rewards: task 'bare' has no default rewards; list at least one"),
    ("task: null", "task must be a mapping, got null"),
    ("algorithm: {name: plian}", "r.yaml:4: algorithm.name: no algorithm 'plian'; did you mean 'plain'?"),
    ("algorithm: {name: plain, clip: 1}", "algorithm.clip: unknown key for algorithm 'plain'; did you mean"),
    ("algorithm: {name: plain, mode: c}", "algorithm.mode must be one of a, b, got 'c'"),
    ("algorithm: {name: plain, nested: {cof: 1}}", "algorithm.nested.cof: unknown key; did you mean 'coef'?"),
    ("algorithm: {name: plain, nested: {coef: -1}}", "r.yaml:4: algorithm.nested.coef must be >= 0, got -1"),
    ("algorithm: {name: plain, enabled: 'yes'}", "algorithm.enabled must be true or false, got 'yes'"),
    ("algorithm: {name: critical}", "critic: critical needs one, such as critic: {kind: shared}"),
    ("algorithm: {name: plain}\ncritic: {kind: shared}", "r.yaml:5: critic: plain needs none; remove it"),
    ("algorithm: {name: critical}\ncritic: {knd: shared}", "critic.knd: unknown key; did you mean 'kind'?"),
    ("algorithm: {name: critical}\ncritic: {learning_rate: 0}", "critic.learning_rate must be > 0, got 0"),
    ("algorithm: {name: grouped}\nseed: &a [*a]", "r.yaml"),
    (
        "rollout_backend: {name: nothing}",
        "rollout_backend.name: no rollout_backend 'nothing'; installed: absent, backend",
    ),
    ('task: {name: "a\\u2028b\\e[31m"}', "task.name: no task 'a b\\x1b[31m'; installed: bare, toy"),
    (
        "rollout_backend: {name: absent}",
        "r.yaml:6: rollout_backend.name: rollout_backend 'absent' is unavailable here",
    ),
    ("rollout_backend: {name: backend, temperature: 1}", "'temperature' belongs in sampling"),
    ("trainer: {prompts_per_step: 4}", "r.yaml:7: trainer.steps is missing (training steps: each samples rollouts"),
    ("trainer: {steps: 0, prompts_per_step: 4}", "trainer.steps must be >= 1, got 0"),
    (
        "trainer: {steps: 1, prompts_per_step: 4, minibatches: 3}",
        "r.yaml:7: trainer.prompts_per_step must be a multiple of minibatches (3), got 4",
    ),
    ("evaluation: {suites: [a]}", "evaluation.suites must be a mapping of names"),
    ("evaluation: {suites: {a: 3}}", "evaluation.suites.a must be a mapping of keys, got 3"),
    (
        "evaluation: {suites: {a: {problem: 3}}}",
        "evaluation.suites.a.problem: unknown key; did you mean 'problems'",
    ),
    (
        "evaluation: {suites: {a: {problems: 0}}}",
        "r.yaml:8: evaluation.suites.a.problems must be >= 1, got 0",
    ),
    ("evaluation: {suites: {a: {task: {name: tyo}}}}", "evaluation.suites.a.task.name: no task 'tyo'"),
    (
        "evaluation: {suites: {a: {task: {name: bare}}}}",
        "evaluation.suites.a.task: task 'bare' has no default rewards",
    ),
    ("evaluation: {suites: {'a b': {}}}", "evaluation.suites must be named like"),
    ("rewards: {toy_reward: 1.0}", "rewards.toy_reward must be a mapping"),
    ("rewards: {toy_reward: null}", "rewards.toy_reward must be a mapping"),
    ("rewards: {toy_reward: {weight: a}}", "rewards.toy_reward.weight must be a number, got 'a'"),
    ("rewards: {toy_reward: {weight: .nan}}", "rewards.toy_reward.weight must be a number, got nan"),
    ("rewards: {toy_reward: {wieght: 1}}", "rewards.toy_reward.wieght: unknown key for reward 'toy_reward'"),
    ("rewards: {toy_rewrad: {}}", "rewards.toy_rewrad: no reward 'toy_rewrad'; did you mean 'toy_reward'?"),
    ("rewards: [toy_reward]", "rewards must be a mapping"),
    ("optimizer: {name: sgd}", "optimizer.name must be one of adamw, adamw_8bit, adamw_bf16, got 'sgd'"),
    ("optimizer: {beta1: 1.0}", "optimizer.beta1 must be in [0, 1), got 1.0"),
    ("checkpoint: {keep: 0}", "checkpoint.keep must be >= 1, got 0"),
    ("logging: {hf_token: abc}", "logging.hf_token must not be written into a recipe; use ${oc.env:NAME}"),
    ("extends: nowhere.yaml", "extends: no such file: "),
    ("extends: [a.yaml]", "extends must be the path of one recipe file"),
    ("extends: r.yaml", "r.yaml: extends itself"),
    ("sft: {max_tokens: 3}", "algorithm: unknown key"),
]

WRONG_OVERRIDES = [
    ("sampling.group_size", "override 'sampling.group_size': expected section.key=value"),
    ("=3", "override '=3': expected section.key=value"),
    ("sampling..group_size=3", "expected section.key=value"),
    ("sampling.group_size=", "override 'sampling.group_size=': no value; write sampling.group_size=null"),
    ("sampling.group_size=x", "override 'sampling.group_size=x': sampling.group_size must be an integer"),
    ("sampling.group_sise=2", "sampling.group_sise: unknown key; did you mean 'group_size'?"),
    ("algorithm.clip_eps=[1", "override 'algorithm.clip_eps=[1': the value is not valid YAML"),
    ("algorithm.clip_eps=1: 2", "the value is not valid YAML"),
    ("algorithm.clip_eps=1\nname: evil", "the value is not valid YAML"),
    ("algorithm.name=grouped sampling.group_size=1", "grouped needs sampling.group_size >= 2, got 1"),
    ("seed.deep=1", "override 'seed.deep=1': seed must be an integer, got a mapping with 1 keys"),
    ("trainer=null", "override 'trainer=null': trainer must be"),
    ("task.name=bare", "rewards: task 'bare' has no default rewards"),
    (
        "rollout_backend.temperature=1",
        "override 'rollout_backend.temperature=1': rollout_backend.temperature: unknown key",
    ),
    ("name=${now:}", "only ${oc.env:NAME} can be interpolated"),
]

WRONG_FILES = [
    (b"", "r.yaml: is empty"),
    (b"# only a comment\n", "r.yaml: is empty"),
    (b"- a\n- b\n", "r.yaml:1: a recipe must be a mapping of keys, got a list"),
    (b"just text", "r.yaml:1: a recipe must be a mapping of keys, got a single value"),
    (b"\x80\x81\xfe\x00", "r.yaml: not a text file"),
    (b"name: \x00", "r.yaml: not valid YAML"),
    (b"a: b\n---\nc: d\n", "not valid YAML: but found another document"),
    (b"a: " + b"[" * 1000, "r.yaml"),
    (b"a: b\n" * 200_001, "bytes; a recipe has at most"),
    (b"name: x\n", "is missing"),
    (
        b"a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\n"
        b"c: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c]\n"
        b"e: [*d,*d,*d,*d,*d,*d,*d,*d,*d]\n",
        "r.yaml",
    ),
]


@pytest.fixture(scope="module")
def plugins() -> Plugins:
    return load_plugins(files=["support.toy_plugin"], environ={"REASONRL_PLUGINS": ""})


def with_line(line: str) -> str:
    """GOOD with the line that starts with the same word replaced, or with the line appended."""
    key = line.partition(":")[0]
    pattern = re.compile(rf"^{key}:.*\n(  .*\n)*", re.MULTILINE)
    replaced, count = pattern.subn(lambda _: line + "\n", GOOD)
    return replaced if count else GOOD + line + "\n"


def error_of(path: Path, overrides: list[str], plugins: Plugins) -> str:
    with pytest.raises((RecipeError, PluginError)) as caught:
        load_recipe(path, overrides, plugins)
    assert isinstance(caught.value, ReasonRLError)
    assert caught.value.exit_code == 2
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 400
    return message


def test_the_good_recipe_is_good(tmp_path: Path, plugins: Plugins) -> None:
    (tmp_path / "r.yaml").write_text(GOOD)
    assert load_recipe(tmp_path / "r.yaml", [], plugins).recipe.name == "good"


@pytest.mark.parametrize(("line", "expected"), WRONG_LINES, ids=[line for line, _ in WRONG_LINES])
def test_wrong_line(line: str, expected: str, tmp_path: Path, plugins: Plugins) -> None:
    (tmp_path / "r.yaml").write_text(with_line(line))
    assert expected in error_of(tmp_path / "r.yaml", [], plugins)


@pytest.mark.parametrize(("text", "expected"), WRONG_OVERRIDES)
def test_wrong_override(text: str, expected: str, tmp_path: Path, plugins: Plugins) -> None:
    (tmp_path / "r.yaml").write_text(GOOD)
    overrides = text.split(" ") if text.count("=") > 1 else [text]
    assert expected in error_of(tmp_path / "r.yaml", overrides, plugins)


@pytest.mark.parametrize(("content", "expected"), WRONG_FILES, ids=range(len(WRONG_FILES)))
def test_wrong_file(content: bytes, expected: str, tmp_path: Path, plugins: Plugins) -> None:
    (tmp_path / "r.yaml").write_bytes(content)
    assert expected in error_of(tmp_path / "r.yaml", [], plugins)


@pytest.mark.parametrize("key", ["name", "model", "task", "algorithm", "trainer"], ids=lambda key: f"missing {key}")
def test_missing_key(key: str, tmp_path: Path, plugins: Plugins) -> None:
    (tmp_path / "r.yaml").write_text("".join(x + "\n" for x in GOOD.splitlines() if not x.startswith(key)))
    assert f"r.yaml: {key} is missing" in error_of(tmp_path / "r.yaml", [], plugins)


def test_unknown_recipe(tmp_path: Path, plugins: Plugins) -> None:
    assert "no such recipe file; packaged recipes: none" in error_of(tmp_path / "nope.yaml", [], plugins)
    assert "is a folder, expected a recipe file" in error_of(tmp_path, [], plugins)
    bundled = load_plugins(environ={"REASONRL_PLUGINS": "reasonrl"})
    assert "did you mean 'countdown_ppo'?" in error_of(Path("countdown_pop"), [], bundled)


def test_error_in_a_parent_names_the_parent(tmp_path: Path, plugins: Plugins) -> None:
    (tmp_path / "parent.yaml").write_text(with_line("sampling: {group_size: x}"))
    (tmp_path / "child.yaml").write_text("extends: parent.yaml\nname: child\n")
    assert "parent.yaml:5: sampling.group_size must be" in error_of(tmp_path / "child.yaml", [], plugins)


def test_extends_in_a_circle(tmp_path: Path, plugins: Plugins) -> None:
    (tmp_path / "a.yaml").write_text("extends: b.yaml\n")
    (tmp_path / "b.yaml").write_text("extends: a.yaml\n")
    assert "a.yaml: extends itself, through a.yaml -> b.yaml" in error_of(tmp_path / "a.yaml", [], plugins)


def test_value_from_the_environment_stays_out_of_the_message(
    tmp_path: Path, plugins: Plugins, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REASONRL_TEST_SECRET", "canary")
    (tmp_path / "r.yaml").write_text(with_line("sampling: {group_size: '${oc.env:REASONRL_TEST_SECRET}'}"))
    message = error_of(tmp_path / "r.yaml", [], plugins)
    assert "canary" not in message
    assert "its value is invalid" in message


def test_a_renamed_key_names_the_new_one(tmp_path: Path, plugins: Plugins) -> None:
    (tmp_path / "r.yaml").write_text(GOOD.replace("rollout_backend:", "rollout:"))
    with pytest.raises(RecipeError, match=r"r\.yaml:\d+: rollout: renamed to 'rollout_backend'"):
        load_recipe(tmp_path / "r.yaml", [], plugins)

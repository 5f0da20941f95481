"""Every plugin of this distribution conforms; checks of whole plugins; the pytest classes."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, ClassVar

import pytest
from support.distributions import write_distribution
from typer.testing import CliRunner

from reasonrl.cli.app import app
from reasonrl.plugins import Plugins, load_plugins
from reasonrl.testing import (
    AlgorithmConformance,
    RewardConformance,
    RolloutConformance,
    TaskConformance,
    check_plugin,
)
from reasonrl.testing.checks import CheckError, CheckResult
from reasonrl.testing.plugin import checks


class TestCountdown(TaskConformance):
    spec = "countdown"
    count = 50


class TestCountdownReward(RewardConformance):
    spec = "countdown"


class TestTinyZeroReward(RewardConformance):
    spec = "countdown_tinyzero"
    task = "countdown"


class TestGRPO(AlgorithmConformance):
    spec = "grpo"


class TestPPO(AlgorithmConformance):
    spec = "ppo"


class TestAdaptiveGRPO(AlgorithmConformance):
    spec = "grpo"
    config: ClassVar = {"kl": {"coef": 0.01, "target": 0.001}}
    test_zero_advantages_teach_nothing = None  # not applicable: the KL term teaches without advantages


class TestAdaptivePPO(AlgorithmConformance):
    spec = "ppo"
    config: ClassVar = {"kl": {"coef": 0.01, "target": 0.001}}
    test_zero_advantages_teach_nothing = None  # not applicable: the KL term teaches without advantages


class TestHF(RolloutConformance):
    spec = "hf"


FAMILY = (
    "dr_grpo",
    "dapo",
    "rloo",
    "reinforce_pp",
    "reinforce_pp_baseline",
    "gspo",
    "cispo",
    "max_rl",
    "gdpo",
    "sapo",
    "dppo",
)
OPTIONS: list[tuple[type, dict[str, Any]]] = [
    (AlgorithmConformance, {"spec": "grpo", "config": {"normalization": "sequence", "scale": "none"}}),
    (AlgorithmConformance, {"spec": "grpo", "config": {"kl": {"coef": 0.01}, "entropy_coef": 0.001}}),
    (AlgorithmConformance, {"spec": "ppo", "config": {"kl": {"coef": 0.01}, "lam": 0.9}}),
    *((AlgorithmConformance, {"spec": name}) for name in FAMILY),
    (AlgorithmConformance, {"spec": "dapo", "config": {"overlong_buffer": 3}}),
    (AlgorithmConformance, {"spec": "dapo", "config": {"overlong_filter": True, "entropy_coef": 0.001}}),
    (
        AlgorithmConformance,
        {"spec": "rloo", "config": {"kl": {"coef": 0.01, "placement": "reward", "estimator": "k1"}}},
    ),
    (AlgorithmConformance, {"spec": "dppo", "config": {"kl": {"coef": 0.01, "weighted": True}}}),
    (TaskConformance, {"spec": "countdown", "config": {"template": "chat"}, "count": 10}),
]


@pytest.mark.parametrize(("base", "attributes"), OPTIONS)
def test_bundled_components_conform_with_other_options(base: type, attributes: dict[str, Any]) -> None:
    results = type("Case", (base,), attributes).run_checks()  # type: ignore[attr-defined]
    assert not [r for r in results if r.has_failed]


def test_a_conformance_class_must_name_its_component() -> None:
    nameless = type("Nameless", (TaskConformance,), {})
    with pytest.raises(CheckError, match=r"Nameless\.spec must be the name of a component"):
        nameless().test_is_built()


def test_a_failed_check_is_a_failed_test_with_the_reason() -> None:
    wrong = type("Wrong", (AlgorithmConformance,), {"spec": "grpo", "config": {"clip_eps": 7.0}})
    with pytest.raises(CheckError, match=r"algorithm grpo: raised RecipeError.*clip_eps must be in"):
        wrong().test_defaults_are_valid()
    with pytest.raises(pytest.skip.Exception, match="needs defaults_are_valid"):
        wrong().test_needs_are_stated()


GOOD = """
    from reasonrl import AlgorithmSpec, ModelSpec, Needs, RecipeSpec, hookimpl
    from pathlib import Path
    {top}

    @hookimpl
    def reasonrl_models():
        yield ModelSpec(name="m", summary="A model.", path=Path(__file__).parent / "{model}")

    @hookimpl
    def reasonrl_recipes():
        yield RecipeSpec(name="r", summary="A recipe.", path=Path(__file__).parent / "{recipe}")
"""
EMPTY = """
    from reasonrl import hookimpl

    @hookimpl
    def reasonrl_tasks():
        return []
"""
BOUNDED = "reasonrl>=0.1,<0.2"
PLUGINS: dict[str, tuple[str, str]] = {
    "loads": ("raise RuntimeError('no luck')", BOUNDED),
    "offers_something": (EMPTY, BOUNDED),
    "imports_nothing_heavy": (GOOD.format(top="import peft_like", model="m", recipe="r.yaml"), BOUNDED),
    "bounds_reasonrl": (GOOD.format(top="", model="m", recipe="r.yaml"), "reasonrl>=0.1"),
    "is_typed": (GOOD.format(top="", model="m", recipe="r.yaml"), BOUNDED),
    "models_are_there": (GOOD.format(top="", model=".", recipe="r.yaml"), BOUNDED),
    "recipes_are_accepted": (GOOD.format(top="", model="m", recipe="bad.yaml"), BOUNDED),
}
RECIPE = """
name: mine
model: {name: m}
task: {name: countdown}
algorithm: {name: grpo}
sampling: {group_size: 2}
trainer: {steps: 1, prompts_per_step: 2}
"""


def write(folder: Path, code: str, requires: str, *, package: bool) -> None:
    """Distribution ``reasonrl-odd``, as a single module or as a package without ``py.typed``."""
    write_distribution(folder, "odd", code, requires=requires)
    home = folder
    if package:
        home = folder / "fake_odd"
        home.mkdir()
        (folder / "fake_odd.py").rename(home / "__init__.py")
    (folder / "peft_like.py").write_text("import sys\nsys.modules['torch'] = sys\n")
    (home / "m").mkdir()
    for name in ("config.json", "tokenizer_config.json"):
        (home / "m" / name).write_text("{}")
    (home / "r.yaml").write_text(RECIPE)
    (home / "bad.yaml").write_text(RECIPE + "nonsense: 1\n")


def load(monkeypatch: pytest.MonkeyPatch, folder: Path) -> Plugins:
    monkeypatch.delitem(sys.modules, "fake_odd", raising=False)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setitem(sys.modules, "torch", sys.modules.get("torch", sys))
    return load_plugins(environ={"REASONRL_PLUGINS": "odd,countdown,critic_free,hf"})


@pytest.mark.parametrize("name", PLUGINS)
def test_a_broken_plugin_fails_its_own_check_and_no_other(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    write(tmp_path, *PLUGINS[name], package=name == "is_typed")
    results = check_plugin("odd", plugins=load(monkeypatch, tmp_path))
    assert [r.check for r in results if r.has_failed] == [name], [r for r in results if r.has_failed]


def test_there_is_a_broken_plugin_for_every_check() -> None:
    assert list(PLUGINS) == checks.names


@pytest.mark.slow
def test_bundled_plugins_are_packaged_as_they_should() -> None:
    plugins = load_plugins(environ={"REASONRL_PLUGINS": "reasonrl"})
    from reasonrl.testing.plugin import PluginSubject

    results: list[CheckResult] = []
    for record in plugins.records:
        if record.distribution == "reasonrl":
            results += checks.run(PluginSubject(record=record, plugins=plugins), record.name)
    assert len(results) >= 4 * len(checks.names)
    assert not [r for r in results if r.has_failed]


def run(*arguments: object, code: int = 0) -> str:
    result = CliRunner().invoke(app, list(map(str, arguments)), prog_name="reasonrl", env={"COLUMNS": "80"})
    assert result.exit_code == code, result.output
    return result.output if code == 2 else result.stdout


PLUGIN_FILE = """
from reasonrl import RewardSpec, hookimpl


class Polite:
    def __init__(self, config, context): ...

    def score(self, problem, completion):
        return {value}


@hookimpl
def reasonrl_rewards():
    yield RewardSpec(name="polite", summary="Says please.", factory=Polite)
"""


def test_plugins_check_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "polite_one.py"
    file.write_text(PLUGIN_FILE.format(value="float('please' in completion.text)"))
    text = run("plugins", "check", file)
    assert "plugin polite_one" in text
    assert "reward polite" in text
    assert text.splitlines()[-1].endswith(" ok, 0 failed")


def test_plugins_check_ends_with_1_and_the_reason(tmp_path: Path) -> None:
    file = tmp_path / "polite_two.py"
    file.write_text(PLUGIN_FILE.format(value="len(completion.text)"))
    text = " ".join(run("plugins", "check", file, code=1).split())
    assert "values_are_in_range failed of '" in text
    assert "1 failed" in text
    rows = json.loads(run("plugins", "check", file, "--json", code=1))
    assert [r["check"] for r in rows if r["status"] == "failed"] == ["values_are_in_range"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["countdwon"], "no plugin 'countdwon'; did you mean 'countdown'?"),
        (["nowhere.py"], "nowhere.py: no such file"),
        (["./"], "has no pyproject.toml"),
        (
            ["countdown", "count=4"],
            "option 'count=4': expected kind.name.key=value, such as task.add.count=4",
        ),
        (["countdown", "--task", "tyo"], "no task 'tyo'"),
        (["countdown", "task.countdwn.max_numbers=3"], "no task 'countdwn'; did you mean 'countdown'?"),
        (["countdown", "reward.countdow.weight=3"], "no reward 'countdow'"),
    ],
)
def test_plugins_check_of_nonsense_is_one_line(
    arguments: list[str], expected: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    text = run("plugins", "check", *arguments, code=2)
    assert expected in text
    assert text.count("\n") == 1


def test_the_kit_and_the_fixtures_import_nothing_before_they_are_used() -> None:
    probe = (
        "import sys, reasonrl.testing, pytest; import reasonrl.testing.pytest_plugin; "
        "print(sorted(set(sys.modules) & {'torch', 'transformers', 'reasonrl.plugins', 'reasonrl.trainer'}))"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.strip() == "[]"

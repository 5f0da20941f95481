"""Isolation: whatever a plugin does while it loads, the others work and the list says what happened."""

import json
import logging
import re
import sys
from pathlib import Path

import pytest
from support.broken_plugins import BROKEN
from support.distributions import write_distribution
from support.toy_plugin import ToyConfig, ToyTask
from typer.testing import CliRunner

from reasonrl import RewardSpec, TaskContext, TaskSpec
from reasonrl.cli.app import app
from reasonrl.errors import (
    PluginConflictError,
    PluginContractError,
    PluginNotFoundError,
    ReasonRLError,
    RecipeError,
)
from reasonrl.plugins import Plugins, load_plugins
from reasonrl.version import __version__

GOOD = """
    from reasonrl import RewardSpec, hookimpl

    @hookimpl
    def reasonrl_rewards():
        yield RewardSpec(name="{reward}", summary="A reward.", factory="fake:Reward")
"""


def load(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *names: str, environ: dict[str, str] | None = None
) -> Plugins:
    """Load only what is installed in ``tmp_path``; its modules are forgotten first."""
    for module in [m for m in sys.modules if m.startswith("fake_")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.syspath_prepend(str(tmp_path))
    allow = {"REASONRL_PLUGINS": ",".join(names)} if environ is None else environ
    return load_plugins(environ=allow)


def toys() -> Plugins:
    return load_plugins(files=["support.toy_plugin"], environ={"REASONRL_PLUGINS": ""})


@pytest.mark.parametrize("case", sorted(BROKEN))
def test_broken_plugin_is_listed_and_harms_nobody(case: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    code, reason = BROKEN[case]
    write_distribution(tmp_path, case, code)
    write_distribution(tmp_path, "zgood", GOOD.format(reward="fine"))
    plugins = load(monkeypatch, tmp_path, case, "zgood")
    records = {r.name: r for r in plugins.records if r.status != "disabled"}
    assert records[case].status == "broken"
    assert reason in (records[case].error or "")
    assert "\n" not in (records[case].error or "")
    assert records[case].provides == ()
    assert "Traceback" in (records[case].traceback or "")
    assert records["zgood"].status == "active"
    assert plugins.get("reward", "fine").name == "fine"
    assert plugins.specs("task") == []


def test_broken_plugins_are_named_when_a_component_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    write_distribution(tmp_path, "raises", "raise RuntimeError('no luck')")
    plugins = load(monkeypatch, tmp_path, "raises")
    with pytest.raises(PluginNotFoundError) as caught:
        plugins.get("task", "anything")
    assert "plugin raises (reasonrl-raises 1.0) is broken: RuntimeError: no luck" in str(caught.value)
    assert caught.value.exit_code == 2


def test_ctrl_c_during_import_passes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    write_distribution(tmp_path, "interrupt", "import signal\nsignal.raise_signal(signal.SIGINT)")
    with pytest.raises(KeyboardInterrupt):
        load(monkeypatch, tmp_path, "interrupt")


def test_what_a_plugin_prints_at_import_stays_out_of_stdout(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_distribution(tmp_path, "chatty", "print('hello')\n" + "import reasonrl\n")
    load(monkeypatch, tmp_path, "chatty")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("requires", "status"),
    [
        ("reasonrl>=99", "incompatible"),
        ("reasonrl<0.1", "incompatible"),
        ("ReasonRL>=99", "incompatible"),
        ("reasonrl>=0.1,<1", "active"),
        ("reasonrl", "active"),
        ("reasonrl>=99; extra == 'future'", "active"),
        ("reasonrl-other>=99", "active"),
        ("reasonrl ~~ 3", "broken"),
    ],
)
def test_declared_requirement_is_checked_before_the_import(
    requires: str, status: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    write_distribution(tmp_path, "versioned", GOOD.format(reward="fine"), requires=requires)
    plugins = load(monkeypatch, tmp_path, "versioned")
    record = next(r for r in plugins.records if r.name == "versioned")
    assert record.status == status
    assert ("fake_versioned" in sys.modules) == (status == "active")


def test_two_providers_conflict_only_when_the_name_is_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    write_distribution(tmp_path, "one", GOOD.format(reward="same"))
    write_distribution(tmp_path, "two", GOOD.format(reward="same"))
    write_distribution(tmp_path, "three", GOOD.format(reward="own"))
    plugins = load(monkeypatch, tmp_path, "one", "two", "three")
    assert plugins.get("reward", "own").name == "own"
    with pytest.raises(PluginConflictError, match=r"one \(reasonrl-one 1.0\) and two \(reasonrl-two 1.0\)"):
        plugins.get("reward", "same")
    record = next(r for r in plugins.records if r.name == "one")
    assert record.status == "active"
    assert record.error == "conflict: reward 'same' is also provided by two (reasonrl-two 1.0)"


def test_two_distributions_may_share_an_entry_point_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    write_distribution(tmp_path, "one", GOOD.format(reward="a"), entry="same")
    write_distribution(tmp_path, "two", GOOD.format(reward="b"), entry="same")
    plugins = load(monkeypatch, tmp_path, "same")
    assert [s.name for s in plugins.specs("reward")] == ["a", "b"]
    assert plugins.provider("reward", "b").distribution == "reasonrl-two"


def test_damaged_metadata_is_listed_and_harms_nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    write_distribution(tmp_path, "good", GOOD.format(reward="fine"))
    write_distribution(tmp_path, "line", "")
    (tmp_path / "reasonrl_line-1.0.dist-info" / "entry_points.txt").write_text("[reasonrl]\nnot a pair\n")
    write_distribution(tmp_path, "bytes", "")
    (tmp_path / "reasonrl_bytes-1.0.dist-info" / "METADATA").write_bytes(b"Name: \xff\xfe\nVersion: 1\n")
    write_distribution(tmp_path, "nameless", GOOD.format(reward="anonymous"))
    (tmp_path / "reasonrl_nameless-1.0.dist-info" / "METADATA").unlink()
    plugins = load(monkeypatch, tmp_path, "good", "nameless", "reasonrl-line")
    status = {r.name: r.status for r in plugins.records}
    assert status["good"] == "active"
    assert status["reasonrl-line"] == "broken"
    assert status.get("nameless", status.get("unknown")) in ("active", "broken")
    assert plugins.get("reward", "fine").name == "fine"


def test_older_copy_further_down_the_path_is_ignored(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    write_distribution(tmp_path / "old", "twice", GOOD.format(reward="old"), version="1.0")
    write_distribution(tmp_path / "new", "twice", GOOD.format(reward="new"), version="2.0")
    monkeypatch.syspath_prepend(str(tmp_path / "old"))
    plugins = load(monkeypatch, tmp_path / "new", "twice")
    assert [s.name for s in plugins.specs("reward")] == ["new"]
    assert plugins.provider("reward", "new").version == "2.0"


@pytest.mark.parametrize("name", ["reasonrl", "ReasonRL"])
def test_what_another_version_of_reasonrl_left_behind_hides_nothing(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    write_distribution(tmp_path, "stale", GOOD.format(reward="old"), entry="countdown", version="0.0.9")
    metadata = tmp_path / "reasonrl_stale-0.0.9.dist-info" / "METADATA"
    metadata.write_text(metadata.read_text().replace("Name: reasonrl-stale", f"Name: {name}"))
    assert f"Name: {name}\n" in metadata.read_text()
    plugins = load(monkeypatch, tmp_path, "reasonrl")
    assert plugins.get("task", "countdown").name == "countdown"
    assert [record.version for record in plugins.records if record.name == "countdown"] == [__version__]


@pytest.mark.parametrize(("value", "active"), [(None, 2), ("", 0), ("one", 1), ("reasonrl-two, one", 2), ("nobody", 0)])
def test_allow_list(value: str | None, active: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    write_distribution(tmp_path, "one", GOOD.format(reward="a"))
    write_distribution(tmp_path, "two", GOOD.format(reward="b"))
    environ = {} if value is None else {"REASONRL_PLUGINS": value}
    plugins = load(monkeypatch, tmp_path, environ=environ)
    mine = {r.name: r for r in plugins.records if r.distribution in ("reasonrl-one", "reasonrl-two")}
    assert sum(r.status == "active" for r in mine.values()) == active
    assert sum(r.status == "disabled" for r in mine.values()) == 2 - active


def test_allow_list_names_what_is_not_installed(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        load_plugins(environ={"REASONRL_PLUGINS": "countdwon"})
    assert "'countdwon', which is not installed; did you mean 'countdown'?" in caplog.text


def test_a_misspelled_list_of_plugins_is_told_by_the_command(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("REASONRL_PLUGINS", "countdwn")
    done = CliRunner().invoke(app, ["recipes", "check", "countdown_ppo"])
    assert done.exit_code == 2
    disabled = re.search(r"plugins disabled by REASONRL_PLUGINS: ([\w, -]+)", done.output)
    assert disabled is not None
    assert set(disabled[1].split(", ")) >= {"countdown", "critic_free", "hf", "ppo", "vllm"}
    assert "'countdwn', which is not installed; did you mean 'countdown'?" in caplog.text


def test_disabled_plugins_are_named_when_a_component_is_missing() -> None:
    plugins = load_plugins(environ={"REASONRL_PLUGINS": ""})
    with pytest.raises(PluginNotFoundError, match=r"disabled by REASONRL_PLUGINS: .*\bcountdown\b"):
        plugins.get("task", "countdown")


def test_unknown_name_says_what_is_near_and_what_kind_it_is() -> None:
    plugins = toys()
    with pytest.raises(PluginNotFoundError, match="no task 'tyo'; did you mean 'toy'"):
        plugins.get("task", "tyo")
    with pytest.raises(PluginNotFoundError, match="'toy_reward' is a reward, not a task"):
        plugins.get("task", "toy_reward")


def test_unavailable_backend_says_how_to_install_it() -> None:
    plugins = toys()
    record = plugins.provider("rollout_backend", "absent")
    assert record.status == "unavailable"
    with pytest.raises(PluginNotFoundError, match="no module no_such_module_anywhere; pip install no-such-"):
        plugins.get("rollout_backend", "absent")
    assert plugins.get("rollout_backend", "absent", allow_unavailable=True).name == "absent"
    assert plugins.get("rollout_backend", "backend").name == "backend"


def test_load_is_fresh_each_time() -> None:
    assert toys().records == toys().records
    assert toys() is not toys()


def test_plugin_file(tmp_path: Path) -> None:
    file = write_distribution(tmp_path / "here", "from_a_file", GOOD.format(reward="filed")) / "fake_from_a_file.py"
    plugins = load_plugins(files=[str(file)], environ={"REASONRL_PLUGINS": ""})
    assert plugins.provider("reward", "filed").distribution == "--plugin"


def test_a_plugin_that_is_loaded_already_is_named(caplog: pytest.LogCaptureFixture) -> None:
    plugins = load_plugins(files=["support.toy_plugin", "support.toy_plugin"], environ={"REASONRL_PLUGINS": ""})
    assert plugins.get("task", "toy").name == "toy"
    assert "--plugin support.toy_plugin: already loaded as plugin" in caplog.text
    assert "leave --plugin out" in caplog.text


def test_a_plugin_in_a_file_is_thought_of() -> None:
    with pytest.raises(PluginNotFoundError, match="one in a file needs --plugin FILE"):
        load_plugins(environ={"REASONRL_PLUGINS": ""}).get("task", "vowels")
    with pytest.raises(
        PluginNotFoundError, match=r"no task 'toi'; did you mean 'toy'\?; installed: bare, toy"
    ) as caught:
        toys().get("task", "toi")
    assert "FILE" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "error"),
    [("missing.py", PluginNotFoundError), ("no_such_module_anywhere", PluginContractError)],
)
def test_plugin_file_that_cannot_be_loaded_is_fatal(text: str, error: type[ReasonRLError]) -> None:
    with pytest.raises(error, match=f"--plugin {text}: "):
        load_plugins(files=[text], environ={"REASONRL_PLUGINS": ""})


def test_plugin_file_must_not_hide_behind_another_module(tmp_path: Path) -> None:
    (tmp_path / "json.py").write_text("x = 1")
    assert json.__file__ is not None
    with pytest.raises(PluginContractError, match="a module named 'json' exists already"):
        load_plugins(files=[str(tmp_path / "json.py")], environ={"REASONRL_PLUGINS": ""})


def test_build_resolves_the_lazy_factory() -> None:
    plugins = toys()
    spec = plugins.get("task", "toy")
    assert isinstance(plugins.build(spec, ToyConfig(), TaskContext(seed=0)), ToyTask)
    reward = plugins.get("reward", "toy_reward")
    assert type(plugins.build(reward, None, None)).__name__ == "ToyReward"


def _raise(error: BaseException) -> object:
    def factory(config: object, context: object) -> object:
        raise error

    return factory


@pytest.mark.parametrize(
    ("factory", "error", "message"),
    [
        (_raise(KeyError("x")), PluginContractError, "its factory raised KeyError: 'x'"),
        (_raise(SystemExit(0)), PluginContractError, "its factory raised SystemExit: 0"),
        (_raise(ValueError("low must\nbe less")), RecipeError, "low must be less"),
        (_raise(PluginNotFoundError("as it is")), PluginNotFoundError, "^as it is$"),
        ("support.toy_plugin:Nobody", PluginContractError, "AttributeError"),
        ("no_such_module_anywhere:X", PluginContractError, "ModuleNotFoundError"),
    ],
)
def test_build_names_the_plugin_whose_factory_raises(factory: object, error: type[ReasonRLError], message: str) -> None:
    spec = TaskSpec(name="toy", summary="", factory=factory)  # type: ignore[arg-type]
    with pytest.raises(error, match=message):
        toys().build(spec, None, None)


@pytest.mark.parametrize("error", ['RuntimeError("observer trouble")', "SystemExit(0)"])
def test_observer_that_raises_is_logged_and_silenced(
    error: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    noisy = """
        from reasonrl import hookimpl

        seen = []

        @hookimpl
        def reasonrl_run_started(run):
            seen.append(run)
            raise RuntimeError("observer trouble")

        @hookimpl
        def reasonrl_run_finished(run, outcome):
            seen.append(outcome)
    """
    write_distribution(tmp_path, "noisy", noisy.replace('RuntimeError("observer trouble")', error))
    write_distribution(tmp_path, "quiet", noisy.replace('raise RuntimeError("observer trouble")', "pass"))
    plugins = load(monkeypatch, tmp_path, "noisy", "quiet")
    with caplog.at_level(logging.ERROR):
        plugins.observe("reasonrl_run_started", run="the run")
        plugins.observe("reasonrl_run_finished", run="the run", outcome="completed", error=None)
    assert sys.modules["fake_noisy"].seen == ["the run"]
    assert sys.modules["fake_quiet"].seen == ["the run", "completed"]
    assert "plugin 'noisy (reasonrl-noisy 1.0)' raised in reasonrl_run_started" in caplog.text


def test_bundled_plugins_come_in_through_the_same_door() -> None:
    plugins = load_plugins(environ={"REASONRL_PLUGINS": "reasonrl"})
    names = {r.name: r.status for r in plugins.records if r.distribution == "reasonrl"}
    assert dict.fromkeys(("countdown", "critic_free", "hf", "ppo"), "active").items() <= names.items()
    assert isinstance(plugins.get("reward", "countdown"), RewardSpec)
    assert plugins.provider("task", "countdown").as_dict().keys() == {
        "name",
        "distribution",
        "version",
        "status",
        "provides",
        "error",
    }

"""Which plugins fit this version: the requirement, the interface number, hooks that are on their way out."""

import logging
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from pluggy import PluginManager
from support.distributions import write_distribution
from typer.testing import CliRunner

import reasonrl
from reasonrl.cli.app import app
from reasonrl.contracts.hookspecs import ReasonRLSpecs, hookimpl, hookspec
from reasonrl.errors import PluginContractError
from reasonrl.plugins import load_plugins
from reasonrl.plugins.loading import _Loader, _Source

CODE = """
    from reasonrl import RewardSpec, hookimpl
    {top}

    @hookimpl
    def reasonrl_rewards():
        yield RewardSpec(name="fine", summary="A reward.", factory="fake:Reward")
"""


@pytest.mark.parametrize(
    ("top", "status", "reason"),
    [
        ("", "active", None),
        (f"REASONRL_API = {reasonrl.API_VERSION}", "active", None),
        (
            f"REASONRL_API = {reasonrl.API_VERSION + 1}",
            "incompatible",
            f"is written for plugin interface {reasonrl.API_VERSION + 1}, reasonrl {reasonrl.__version__} has "
            f"{reasonrl.API_VERSION}; upgrade reasonrl",
        ),
        ("REASONRL_API = 0", "incompatible", "upgrade the plugin"),
        ("REASONRL_API = 'one'", "broken", "REASONRL_API is 'one', expected a whole number"),
        ("REASONRL_API = True", "broken", "expected a whole number"),
    ],
)
def test_the_interface_number(
    top: str, status: str, reason: str | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    write_distribution(tmp_path, "numbered", CODE.format(top=top))
    monkeypatch.delitem(sys.modules, "fake_numbered", raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))
    plugins = load_plugins(environ={"REASONRL_PLUGINS": "numbered"})
    record = next(r for r in plugins.records if r.name == "numbered")
    assert record.status == status
    assert reason is None or reason in (record.error or "")
    assert len(plugins.specs("reward")) == (status == "active")


def test_a_file_for_another_interface_is_refused() -> None:
    newer = SimpleNamespace(REASONRL_API=99, __name__="newer")
    with pytest.raises(PluginContractError, match=r"plugin newer: .*is written for plugin interface 99"):
        load_plugins(environ={"REASONRL_PLUGINS": ""}, objects=[newer])


class Aging(ReasonRLSpecs):
    """The hooks, two of which will go."""

    @hookspec(warn_on_impl=DeprecationWarning("reasonrl_old goes in 0.3; use reasonrl_tasks"))
    def reasonrl_old(self) -> None: ...

    @hookspec(warn_on_impl_args={"mood": DeprecationWarning("argument mood goes in 0.3; leave it out")})
    def reasonrl_changed(self, mood: str) -> None: ...


def test_deprecated_hooks_and_arguments_are_told_and_still_work(caplog: pytest.LogCaptureFixture) -> None:
    @hookimpl
    def reasonrl_old() -> None: ...

    @hookimpl
    def reasonrl_changed(mood: str) -> None: ...

    manager = PluginManager("reasonrl")
    manager.add_hookspecs(Aging)
    loader = _Loader(manager=manager)
    old = SimpleNamespace(reasonrl_old=reasonrl_old, reasonrl_changed=reasonrl_changed)
    with caplog.at_level(logging.WARNING):
        loader.add(_Source(name="old", value="old", distribution="reasonrl-old", version="1.0"), old)
    (record,) = loader.finish().records
    assert record.status == "active"
    assert sorted(record.deprecations) == [
        "argument mood goes in 0.3; leave it out",
        "reasonrl_old goes in 0.3; use reasonrl_tasks",
    ]
    assert "plugin old (reasonrl-old 1.0): reasonrl_old goes in 0.3" in caplog.text
    assert record.hooks == ("reasonrl_changed", "reasonrl_old")


def test_no_bundled_plugin_uses_what_will_go() -> None:
    for record in load_plugins(environ={"REASONRL_PLUGINS": "reasonrl"}).records:
        assert record.deprecations == ()


def shown(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["plugins", "show", *arguments], env={"COLUMNS": "80"})
    assert result.exit_code == 0, result.output
    return " ".join(result.output.split())


def test_show_names_hooks_papers_ranges_and_limits(tmp_path: Path) -> None:
    text = shown("ppo")
    assert "hooks: reasonrl_algorithms" in text
    assert "papers: arXiv:1707.06347, arXiv:1506.02438" in text
    assert "kl.coef 0.0 Weight of the penalty" in text
    text = shown("countdown")
    assert "hooks: reasonrl_models, reasonrl_recipes, reasonrl_rewards, reasonrl_tasks" in text
    assert "range: 0 to 1" in text
    file = tmp_path / "isolated_reward.py"
    file.write_text(
        "from reasonrl import RewardSpec, hookimpl\n\n@hookimpl\ndef reasonrl_rewards():\n"
        "    yield RewardSpec(name='far', summary='Far.', factory='a:b', isolation='process', timeout_s=2.5)\n"
    )
    text = shown("isolated_reward", "--plugin", str(file))
    assert "runs in a separate process, with a timeout of 2.5 s per completion" in text

"""What the kit offers besides checks: fixtures, the scripted backend, a policy that says what it is told."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import reasonrl.testing
from reasonrl import (
    FinishReason,
    Problem,
    RewardSpec,
    RolloutBackend,
    RolloutRequest,
    SamplingParams,
    hookimpl,
)
from reasonrl.errors import PluginContractError
from reasonrl.plugins import load_plugins
from reasonrl.testing.policies import forward_logprobs, steer
from reasonrl.testing.scripted import scripted_spec

RECIPE = {
    "name": "fixture",
    "task": {"name": "countdown", "template": "compact"},
    "algorithm": {"name": "grpo"},
    "sampling": {"group_size": 2},
}


def plugin(name: str) -> Any:
    @hookimpl
    def reasonrl_rewards() -> list[RewardSpec]:
        return [RewardSpec(name=name, summary="A reward.", factory="fake:Reward")]

    return SimpleNamespace(reasonrl_rewards=reasonrl_rewards, __name__=name)


def request(size: int, *, limit: int = 50) -> RolloutRequest:
    sampling = SamplingParams(max_completion_tokens=limit)
    return RolloutRequest(
        problem=Problem(id="p", prompt="x"), prompt_ids=(5,), group_size=size, sampling=sampling, seed=0
    )


def test_isolated_plugins_hold_what_they_are_given_and_no_more(isolated_plugins: Callable[..., Any]) -> None:
    plugins = isolated_plugins(plugin("one"), plugin("two"))
    assert [spec.name for spec in plugins.specs("reward")] == ["one", "two"]
    assert plugins.specs("task") == []
    with_backend = isolated_plugins("support.toy_plugin", installed=("hf",))
    assert [spec.name for spec in with_backend.specs("rollout_backend")] == ["absent", "backend", "hf"]
    assert [spec.name for spec in with_backend.specs("algorithm")] == ["critical", "grouped", "plain"]


def test_an_object_that_is_no_plugin_is_refused(isolated_plugins: Callable[..., Any]) -> None:
    with pytest.raises(PluginContractError, match=r"plugin empty: .*offers nothing"):
        isolated_plugins(SimpleNamespace(__name__="empty"))


def test_the_scripted_backend_replays_in_turn(scripted_backend: Callable[..., Any]) -> None:
    backend = scripted_backend(["yes", "no, never"])
    assert isinstance(backend, RolloutBackend)
    with backend as backend:
        backend.sync_weights(iter(()), policy_version=4)
        first, second = backend.generate([request(1), request(2, limit=5)])
    assert [c.text for c in first.completions] == ["yes"]
    assert first.completions[0].finish_reason is FinishReason.EOS
    assert len(first.completions[0].token_ids) == 4
    assert [(c.text, c.finish_reason) for c in second.completions] == [
        ("no, n", FinishReason.LENGTH),
        ("yes", FinishReason.EOS),
    ]
    assert {c.policy_version for c in second.completions} == {4}
    assert (backend.versions, len(backend.requests)) == ([4], 2)
    with pytest.raises(ValueError, match="at least one completion"):
        scripted_backend([])


def test_the_scripted_backend_serves_a_recipe(isolated_plugins: Callable[..., Any], tiny_policy: Any) -> None:
    @hookimpl
    def reasonrl_rollout_backends() -> list[Any]:
        return [scripted_spec(["42"])]

    said = SimpleNamespace(reasonrl_rollout_backends=reasonrl_rollout_backends, __name__="said")
    spec = isolated_plugins(said).get("rollout_backend", "scripted")
    context = SimpleNamespace(tokenizer=tiny_policy.tokenizer)
    assert spec.factory(None, context).generate([request(1)])[0].completions[0].text == "42"


def test_the_tiny_policy_says_what_it_is_steered_to(tiny_policy: Any) -> None:
    a, b = tiny_policy.tokenizer.encode("ab")
    steer(tiny_policy, {a: 1.0, b: 0.0}, flat=True)
    table = torch.softmax(forward_logprobs(tiny_policy, (7, 8, 9), (a, b)), dim=-1)
    torch.testing.assert_close(table[:, a] / table[:, b], torch.full((2,), 2.718282), atol=1e-3, rtol=1e-3)
    assert float(table[:, [a, b]].sum()) == pytest.approx(2.0, abs=1e-4)


def test_a_tied_model_cannot_be_steered(tmp_path: Path) -> None:
    tied = reasonrl.testing.tiny_policy(tmp_path / "tied", hidden=16, heads=2, kv_heads=1)
    with pytest.raises(ValueError, match="tie=False"):
        steer(tied, {})


def test_run_recipe_trains_two_small_steps(run_recipe: Callable[..., Any], tmp_path: Path) -> None:
    result = run_recipe(RECIPE, "trainer.prompts_per_step=2", "evaluation.every=0")
    assert result.outcome == "completed"
    assert result.run_dir.parent == tmp_path / "runs"
    assert len((result.run_dir / "metrics.jsonl").read_text().splitlines()) == 2


def test_everything_that_is_announced_is_there() -> None:
    for name in reasonrl.testing.__all__:
        assert getattr(reasonrl.testing, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = reasonrl.testing.nonsense


def test_loading_objects_beside_files() -> None:
    plugins = load_plugins(environ={"REASONRL_PLUGINS": ""}, objects=[plugin("one")], files=["support.toy_plugin"])
    assert {spec.name for spec in plugins.specs("reward")} == {"one", "toy_reward"}

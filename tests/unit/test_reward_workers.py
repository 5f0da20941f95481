"""A reward in worker processes says what it says inline, in order, and is refused as early."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest
from support import misbehaving as m
from support.builders import Direct, Slot, completion, group
from support.isolated import inline, isolated, reasons, strays, texts, wait_until, zombies
from support.small_recipes import recipe

from reasonrl import FinishReason, NoConfig, RewardContext, RewardSpec
from reasonrl.errors import PluginContractError, RecipeError
from reasonrl.plugins import load_plugins
from reasonrl.recipe.load import load_recipe
from reasonrl.recipe.render import render_plain
from reasonrl.rewards.judging import DROPPED, MAX_ANSWER, MAX_METRICS, MAX_NAME, MAX_REASON
from reasonrl.rewards.pool import default_size
from reasonrl.rewards.runner import RewardRunner, Workers
from reasonrl_countdown.rewards import TinyZeroReward

ANSWERS = ["<answer>3+5+8</answer>", "<answer>3*5*8</answer>", "16", "<answer>1/0</answer>", "\ud800", ""]


def test_an_isolated_reward_says_what_it_says_inline() -> None:
    asked = [group([completion(text=t) for t in ANSWERS], numbers=[3, 5, 8], target=n) for n in (16, 120, 7)]
    spec = RewardSpec(name="r", summary="r", factory=TinyZeroReward)
    inline = RewardRunner.build({"r": Slot(spec)}, load_plugins(files=[]), RewardContext())
    with isolated(factory=TinyZeroReward) as apart:
        assert apart.score_all(asked) == inline.score_all(asked)
        assert [apart.score(one) for one in asked] == inline.score_all(asked)
        assert apart.score_all([]) == []


def test_answers_come_in_order_whoever_was_first_and_an_aborted_completion_is_not_asked_about() -> None:
    asked = [texts(*map(str, range(start, start + 5))) for start in (0, 5)]
    aborted = group([completion(text="9"), completion(text="no number", reason=FinishReason.ABORT)])
    with isolated(m.slow_for_the_first) as runner:
        results = runner.score_all([*asked, aborted])
    totals = [output.total for result in results for output in result.rewards]
    assert totals == [n / 100 for n in range(10)] + [0.09, None]
    assert reasons(results[2].rewards) == ["", "abort"]


def test_a_group_reward_sees_its_group() -> None:
    with isolated(factory=m.Ranks) as runner:
        results = runner.score_all([texts("a", "bb"), texts("cccc", "d")])
    assert [[output.total for output in result.rewards] for result in results] == [[0.5, 1.0], [1.0, 0.25]]


def test_equal_rewards_of_several_suites_share_their_workers() -> None:
    def build(name: str, seed: int, timeout_s: float = 10.0) -> RewardRunner:
        config = m.Behavior(m.loaded_modules.__name__)
        spec = RewardSpec(
            name="r", summary="r", factory=m.Misbehaving, config=m.Behavior, isolation="process", timeout_s=timeout_s
        )
        return RewardRunner.build(
            {name: Slot(spec, config=config)}, Direct(), RewardContext(seed=seed), workers=workers
        )

    workers = Workers()
    runners = [build("r", 0), build("r", 0), build("other", 0), build("r", 1), build("r", 0, timeout_s=9.0)]
    processes = [(runner.score(texts("a")).rewards[0].answer or "").split()[0] for runner in runners]
    assert processes[0] == processes[1]
    assert len(set(processes)) == 4
    runners[0].close()
    assert runners[1].score(texts("a")).rewards[0].answer, "a pool that was closed starts new workers"
    for runner in runners:
        runner.close()


def test_a_worker_has_a_session_of_its_own_and_no_torch() -> None:
    with isolated(m.loaded_modules) as runner:
        output = runner.score(texts("a")).rewards[0]
    pid, session = map(int, (output.answer or "").split())
    assert os.getpid() not in (pid, session)
    assert pid == session or sys.platform == "linux"  # there the guard leads it
    assert output.reasons == {}


@pytest.mark.parametrize(
    ("factory", "error", "message"),
    [
        (m.refuses_its_config, RecipeError, "reward 'r': limit must be positive, got -1"),
        (m.cannot_be_built, PluginContractError, "factory raised ImportError: no module named 'sympy'"),
        (m.makes_no_reward, PluginContractError, "its factory returned int, which has neither score"),
        (m.prints_and_exits, PluginContractError, r"'r' in its own process: worker died \(exit 9\)"),
        ("support.misbehaving:Nothing", PluginContractError, "factory raised AttributeError"),
    ],
)
def test_a_reward_that_cannot_be_built_is_refused_at_once(factory: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        isolated(factory=factory)


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"isolation": "thread"}, "isolation must be one of inline, process, got 'thread'"),
        ({"timeout_s": 0}, "timeout_s must be a number of seconds > 0, got 0"),
        ({"timeout_s": float("nan")}, "timeout_s must"),
        ({"timeout_s": "5"}, "timeout_s must"),
        ({"memory_mb": 0}, "memory_mb must be a whole number > 0, at most 1073741824, or None, got 0"),
        ({"memory_mb": True}, "memory_mb must"),
    ],
)
def test_limits_are_checked(limits: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RewardSpec(name="r", summary="r", factory=NoConfig, **limits)


def test_a_recipe_may_isolate_a_reward(tmp_path: Path, tiny_model: Path) -> None:
    plugins = load_plugins(files=["support.faults_plugin"])
    rewards = {"flaky": {"weight": 2.0, "isolation": "process", "timeout_s": 7, "memory_mb": None, "fail_every": 3}}
    resolved = load_recipe(recipe(tmp_path, tiny_model, rewards=rewards), (), plugins)
    spec = resolved.rewards["flaky"].spec
    assert (spec.isolation, spec.timeout_s, spec.memory_mb) == ("process", 7, None)
    assert resolved.rewards["flaky"].config.fail_every == 3
    assert render_plain(resolved)["rewards"]["flaky"]["timeout_s"] == 7
    plain = load_recipe(recipe(tmp_path, tiny_model), (), plugins)
    assert plain.rewards["flaky"].spec.isolation == "inline"
    assert "timeout_s" not in render_plain(plain)["rewards"]["flaky"]
    with pytest.raises(RecipeError, match=r"rewards\.flaky\.timeout_s: timeout_s must be a number of seconds"):
        load_recipe(recipe(tmp_path, tiny_model), ["rewards.flaky.timeout_s=-1"], plugins)


def test_workers_are_shared_out_among_the_ranks_of_a_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(16)), raising=False)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    assert default_size() == 4
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")
    assert default_size() == 2
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "99")
    assert default_size() == 1


@pytest.mark.skipif(sys.platform != "linux", reason="needs a subreaper and /proc")
@pytest.mark.parametrize("behavior", [m.escapes, m.escapes_and_dies, m.escapes_and_hangs])
def test_nothing_gets_past_the_guard(behavior: Any) -> None:
    """Not even what leaves its session, its environment and its parents, however the worker ends."""
    with isolated(behavior, timeout_s=2.0) as runner:
        runner.score(texts("a"))
    assert wait_until(lambda: not strays())
    assert not zombies()


def test_a_completion_that_the_judge_does_not_survive_is_scored_if_the_reward_says_so() -> None:
    with isolated(m.kills_itself, lost_value=0.0) as runner:
        output = runner.score(texts("a")).rewards[0]
    assert (output.total, output.correct) == (0.0, False)
    assert "killed by signal" in output.reasons["r"]


def test_sizes_of_a_score_are_limited_and_what_is_over_counted() -> None:
    for build in (isolated, inline):
        with build(m.much) as runner:
            output = runner.score(texts("a")).rewards[0]
        assert output.total == 0.5
        assert len(output.reasons["r"]) <= MAX_REASON
        assert "100,000 characters" in output.reasons["r"]
        assert len(output.answer or "") <= MAX_ANSWER
        assert len(output.metrics) == MAX_METRICS + 1
        assert output.metrics[f"r/{DROPPED}"] == 2000 - MAX_METRICS
        assert max(map(len, output.metrics)) <= MAX_NAME + 2

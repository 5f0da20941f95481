"""The kit's checks of tasks and rewards: a good one passes all, a broken one fails its own check and no other."""

from types import SimpleNamespace
from typing import Any

import pytest
from support import kit_tasks

from reasonrl import RewardSpec, TaskSpec, hookimpl
from reasonrl.plugins import Plugins, load_plugins
from reasonrl.testing import check_reward, check_task
from reasonrl.testing.checks import CheckResult
from reasonrl.testing.rewards import checks as reward_checks
from reasonrl.testing.tasks import checks as task_checks

COUNT = 12

TASKS: dict[str, dict[str, Any]] = {
    "has_a_summary": {"summary": ""},
    "options_have_help": {"config": kit_tasks.Silent},
    "defaults_are_valid": {"config": kit_tasks.Impossible},
    "is_built": {"factory": kit_tasks.NoProblems},
    "sizes_are_honored": {"factory": kit_tasks.Shrinking},
    "problems_are_well_formed": {"factory": kit_tasks.EmptyPrompt},
    "info_is_json": {"factory": kit_tasks.TupleInfo},
    "ids_are_unique": {"factory": kit_tasks.SameIds},
    "problems_are_repeatable": {"factory": kit_tasks.Forgetful},
    "problems_are_the_same_everywhere": {"factory": kit_tasks.HashSeeded},
    "the_seed_matters": {"factory": kit_tasks.Unseeded},
    "splits_are_apart": {"factory": kit_tasks.Leaky},
    "global_randomness_is_left_alone": {"factory": kit_tasks.Global},
    "references_earn_the_maximum": {"factory": kit_tasks.WrongReference},
    "demonstrations_are_repeatable": {"factory": kit_tasks.MoodyDemonstration},
    "behaviors_are_numbers": {"factory": kit_tasks.ShoutingBehaviors},
    "replies_have_the_form_of_the_prompt": {"factory": kit_tasks.MessagesInText},
    "replies_are_repeatable": {"factory": kit_tasks.Impatient},
    "tools_can_be_called": {"factory": kit_tasks.Undocumented},
    "data_summaries_add_up": {"factory": kit_tasks.WrongSummary},
}
REWARDS: dict[str, dict[str, Any]] = {
    "has_a_summary": {"summary": "two\nlines"},
    "options_have_help": {"config": kit_tasks.Silent},
    "defaults_are_valid": {"config": kit_tasks.Impossible},
    "is_built": {"factory": kit_tasks.NoScore},
    "works_in_a_process": {"factory": lambda config, context: kit_tasks.Reward(config, context)},
    "answers_in_time": {"factory": kit_tasks.Slow, "timeout_s": 1.0},
    "never_raises": {"factory": kit_tasks.Raising},
    "scores_are_well_formed": {"factory": kit_tasks.Text},
    "values_are_in_range": {"factory": kit_tasks.Generous},
    "is_the_same_in_both_processes": {"factory": kit_tasks.Local},
    "does_not_remember": {"factory": kit_tasks.Bored},
    "leaves_the_problem_alone": {"factory": kit_tasks.Scribbling},
    "references_earn_the_maximum": {"factory": kit_tasks.Strict},
    "tells_completions_apart": {"factory": kit_tasks.Constant},
}


def task(**changes: Any) -> TaskSpec:
    given = {"name": "double", "summary": "Double it.", "config": kit_tasks.Config, "factory": kit_tasks.Task}
    return TaskSpec(**{**given, "default_rewards": ("double",), **changes})


def reward(**changes: Any) -> RewardSpec:
    given = {"name": "double", "summary": "1.0 if right.", "factory": kit_tasks.Reward, "timeout_s": 60.0}
    return RewardSpec(**{**given, **changes})


def plugins() -> Plugins:
    @hookimpl
    def reasonrl_tasks() -> list[TaskSpec]:
        return [task()]

    @hookimpl
    def reasonrl_rewards() -> list[RewardSpec]:
        return [reward()]

    good = SimpleNamespace(reasonrl_tasks=reasonrl_tasks, reasonrl_rewards=reasonrl_rewards, __name__="double")
    return load_plugins(environ={"REASONRL_PLUGINS": ""}, objects=[good])


def failed(results: list[CheckResult]) -> list[str]:
    return [result.check for result in results if result.has_failed]


def test_a_good_task_passes_every_check() -> None:
    results = check_task("double", plugins=plugins(), count=COUNT)
    assert [r.check for r in results] == task_checks.names
    assert {r.status for r in results} == {"ok"}, [r for r in results if r.status != "ok"]


def test_there_is_a_broken_task_for_every_check() -> None:
    assert list(TASKS) == task_checks.names
    assert list(REWARDS) == reward_checks.names


@pytest.mark.parametrize("check", TASKS)
def test_a_broken_task_fails_its_own_check_and_no_other(check: str) -> None:
    results = check_task(task(**TASKS[check]), plugins=plugins(), count=COUNT)
    assert failed(results) == [check], [r for r in results if r.has_failed]
    reason = next(r.reason for r in results if r.check == check)
    assert reason
    assert "\n" not in reason


def test_a_good_reward_passes_every_check() -> None:
    results = check_reward("double", plugins=plugins())
    assert [r.check for r in results] == reward_checks.names
    assert {r.status for r in results} == {"ok"}, [r for r in results if r.status != "ok"]


@pytest.mark.parametrize("check", REWARDS)
def test_a_broken_reward_fails_its_own_check_and_no_other(check: str) -> None:
    results = check_reward(reward(**REWARDS[check]), task="double", plugins=plugins())
    assert failed(results) == [check], [r for r in results if r.has_failed]
    reason = next(r.reason for r in results if r.check == check)
    assert check != "answers_in_time" or "timed out after 1 s" in reason


def test_a_group_reward_is_checked_too() -> None:
    results = check_reward(reward(name="ranking", factory=kit_tasks.Ranking), plugins=plugins())
    assert failed(results) == []
    states = {r.check: r.status for r in results}
    assert states["does_not_remember"] == "ok"
    assert states["references_earn_the_maximum"] == "not applicable"


def test_a_task_without_the_optional_parts_is_told_what_was_not_looked_at() -> None:
    class Bare(kit_tasks.Task):
        reference = demonstration = behaviors = data_summary = None  # type: ignore[assignment]
        respond = tools = None  # type: ignore[assignment]

    results = {r.check: r for r in check_task(task(factory=Bare), plugins=plugins(), count=COUNT)}
    for check in (
        "references_earn_the_maximum",
        "demonstrations_are_repeatable",
        "behaviors_are_numbers",
        "replies_have_the_form_of_the_prompt",
        "replies_are_repeatable",
        "tools_can_be_called",
        "data_summaries_add_up",
    ):
        assert results[check].status == "not applicable"
    assert "cannot be pickled" in results["problems_are_the_same_everywhere"].reason


def test_checks_that_build_on_a_failed_one_are_not_run() -> None:
    results = {r.check: r for r in check_task(task(factory=kit_tasks.NoProblems), plugins=plugins())}
    assert results["ids_are_unique"].status == "not run"
    assert results["ids_are_unique"].reason == "needs problems_are_well_formed"

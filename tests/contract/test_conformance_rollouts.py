"""The kit's checks of rollout backends: a broken backend fails its own check and no other."""

from typing import Any

import pytest
from support import kit_backends, kit_tasks

from reasonrl import RolloutBackendSpec
from reasonrl.plugins import load_plugins
from reasonrl.testing import check_rollout
from reasonrl.testing.checks import CheckResult
from reasonrl.testing.rollouts import checks

PLUGINS = load_plugins(environ={"REASONRL_PLUGINS": ""})
BROKEN: dict[str, dict[str, Any]] = {
    "has_a_summary": {"summary": ""},
    "options_have_help": {"config": kit_tasks.Silent},
    "defaults_are_valid": {"config": kit_tasks.Impossible},
    "is_built": {"factory": kit_backends.NoGenerate},
    "starts": {"factory": kit_backends.NoEntry},
    "answers_every_request_in_order": {"factory": kit_backends.Shuffled},
    "ends_with_eos": {"factory": kit_backends.OverTheEnd},
    "stops_at_the_token_limit": {"factory": kit_backends.WrongReason},
    "stops_at_stop_strings": {"factory": kit_backends.StopLeftOut},
    "the_text_is_that_of_the_tokens": {"factory": kit_backends.Polished},
    "log_probabilities_are_those_of_a_forward_pass": {"factory": kit_backends.Imprecise},
    "greedy_takes_the_likeliest": {"factory": kit_backends.NeverGreedy},
    "samples_differ": {"factory": kit_backends.Copying},
    "the_seed_fixes_the_samples": {"factory": kit_backends.Restless},
    "samples_follow_the_distribution": {"factory": kit_backends.Lukewarm},
    "new_weights_are_used": {"factory": kit_backends.Stale},
    "continues_conversations": {"factory": kit_backends.Forgetful},
    "the_policy_is_left_alone": {"factory": kit_backends.Sleepy},
    "closes_twice": {"factory": kit_backends.CloseOnce},
}


def check(**changes: Any) -> list[CheckResult]:
    given = {"name": "backend", "summary": "Samples.", "factory": kit_backends.Good}
    return check_rollout(RolloutBackendSpec(**{**given, **changes}), plugins=PLUGINS)


def test_there_is_a_broken_backend_for_every_check() -> None:
    assert list(BROKEN) == checks.names


def test_a_backend_that_cannot_start_fails_that_check_only() -> None:
    assert [r.check for r in check(**BROKEN["starts"]) if r.has_failed] == ["starts"]


@pytest.mark.slow
@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_backend_fails_its_own_check_and_no_other(name: str) -> None:
    results = check(**BROKEN[name])
    assert [r.check for r in results if r.has_failed] == [name], [r for r in results if r.has_failed]


@pytest.mark.slow
def test_a_backend_without_log_probabilities_passes_if_it_says_so() -> None:
    results = {r.check: r for r in check(factory=kit_backends.Blind, provides_logprobs=False)}
    assert not [r for r in results.values() if r.has_failed]
    assert results["log_probabilities_are_those_of_a_forward_pass"].status == "not applicable"

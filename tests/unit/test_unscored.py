"""What a run says of completions without a score."""

from dataclasses import replace

from support.scripted import scripted_groups

from reasonrl import FinishReason
from reasonrl.trainer.rollout_metrics import count_failed, explain_unscored


def test_a_completion_that_failed_before_its_reward_is_not_blamed_on_it() -> None:
    (group,) = scripted_groups(1, 4, unscored=True)
    assert explain_unscored([group])["r"].startswith("for 1 of 4 completions")
    assert count_failed([group]) == 0
    for reason in (FinishReason.ERROR, FinishReason.ABORT):
        first, *others = group.group.completions
        failed = replace(group.group, completions=(replace(first, finish_reason=reason), *others))
        ended = replace(group, group=failed)
        assert explain_unscored([ended]) == {}
        assert count_failed([ended]) == 1

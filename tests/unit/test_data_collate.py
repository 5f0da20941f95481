"""The one place that pads, against an example made by hand."""

import pytest
import torch
from support.builders import completion, group, output

from reasonrl import FinishReason, RewardOutput, ScoredGroup
from reasonrl.contracts.batch import TrainBatch
from reasonrl.data.collate import collate, pad_rows

PAD = 99
CPU = torch.device("cpu")


def golden() -> TrainBatch:
    first = ScoredGroup(
        group=group(
            [
                completion((11, 12, 13), logprobs=(-0.5, -1.0, -1.5), reason=FinishReason.LENGTH, version=4),
                completion((14,), logprobs=(-2.0,), version=4),
            ],
            prompt=(1, 2),
        ),
        rewards=(output(0.5, token_values=(0.1, 0.2, 0.3)), output(None)),
    )
    second = ScoredGroup(
        group=group([completion((15, 16), logprobs=(-3.0, -4.0), version=5)], prompt=(3,)),
        rewards=(output(1.0),),
    )
    return collate([first, second], pad_id=PAD, device=CPU)


def test_every_tensor_is_aligned_to_the_input_ids() -> None:
    batch = golden()
    assert batch.input_ids.tolist() == [[1, 2, 11, 12, 13], [1, 2, 14, PAD, PAD], [3, 15, 16, PAD, PAD]]
    assert batch.attention_mask.int().tolist() == [[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 1, 1, 0, 0]]
    assert batch.response_mask.int().tolist() == [[0, 0, 1, 1, 1], [0, 0, 0, 0, 0], [0, 1, 1, 0, 0]]
    assert batch.rollout_logprobs is not None
    assert batch.rollout_logprobs.tolist() == [
        [0.0, 0.0, -0.5, -1.0, -1.5],
        [0.0, 0.0, -2.0, 0.0, 0.0],
        [0.0, -3.0, -4.0, 0.0, 0.0],
    ]
    assert batch.token_rewards is not None
    torch.testing.assert_close(
        batch.token_rewards,
        torch.tensor([[0.0, 0.0, 0.1, 0.2, 0.3], [0.0] * 5, [0.0] * 5]),
    )
    assert batch.rewards.tolist() == [0.5, 0.0, 1.0]
    assert batch.scored.tolist() == [True, False, True]
    assert batch.truncated.tolist() == [True, False, False]
    assert batch.group_ids.tolist() == [0, 0, 1]
    assert batch.policy_versions.tolist() == [4, 4, 5]
    assert batch.num_rows == 3


def test_types_are_those_of_the_contract() -> None:
    batch = golden()
    assert {
        batch.attention_mask.dtype,
        batch.response_mask.dtype,
        batch.scored.dtype,
        batch.truncated.dtype,
    } == {torch.bool}
    assert {batch.input_ids.dtype, batch.group_ids.dtype, batch.policy_versions.dtype} == {torch.int64}
    assert batch.rewards.dtype == torch.float32
    assert batch.rollout_logprobs is not None
    assert batch.rollout_logprobs.dtype == torch.float32


def test_rows_can_be_selected_and_cut() -> None:
    part = golden().select(torch.tensor([2, 1]), 3)
    assert part.input_ids.tolist() == [[3, 15, 16], [1, 2, 14]]
    assert part.rewards.tolist() == [1.0, 0.0]
    assert part.group_ids.tolist() == [1, 0]


def test_token_rewards_are_absent_when_no_reward_gives_any() -> None:
    rows = ScoredGroup(group=group([completion()]), rewards=(output(1.0),))
    assert collate([rows], pad_id=PAD, device=CPU).token_rewards is None


@pytest.mark.parametrize(("total", "known"), [(1.0, False), (None, True)])
def test_only_a_scored_completion_without_logprobs_makes_them_unknown(total: float | None, known: bool) -> None:
    rows = ScoredGroup(
        group=group([completion((5,), logprobs=(-1.0,)), completion((6, 7), reason=FinishReason.ABORT)]),
        rewards=(output(0.0), output(total)),
    )
    batch = collate([rows], pad_id=PAD, device=CPU)
    assert (batch.rollout_logprobs is not None) is known
    if batch.rollout_logprobs is not None:
        assert batch.rollout_logprobs.tolist() == [[0.0, -1.0, 0.0], [0.0, 0.0, 0.0]]


def test_a_reward_of_zero_is_scored() -> None:
    batch = collate([ScoredGroup(group=group([completion()]), rewards=(output(0.0),))], pad_id=PAD, device=CPU)
    assert batch.scored.tolist() == [True]
    assert batch.response_mask.any()


def test_pad_rows_pads_on_the_right() -> None:
    assert pad_rows([[1, 2], [], [3]], 9, int, 3).tolist() == [[1, 2, 9], [9, 9, 9], [3, 9, 9]]


@pytest.mark.parametrize("reason", list(FinishReason))
def test_truncated_means_cut_at_the_limit_and_nothing_else(reason: FinishReason) -> None:
    rows = ScoredGroup(group=group([completion(reason=reason)]), rewards=(output(0.0),))
    truncated = collate([rows], pad_id=PAD, device=CPU).truncated
    assert truncated.tolist() == [reason is FinishReason.LENGTH]


def test_rewards_by_name_are_0_where_a_completion_has_no_score() -> None:
    scores = [
        RewardOutput(total=1.5, components={"a": 1.0, "b": 0.5}),
        RewardOutput(total=None, components={"a": None, "b": 0.25}),
    ]
    scored = ScoredGroup(group=group([completion((1,)), completion((2,))], prompt=(3,)), rewards=tuple(scores))
    batch = collate([scored], pad_id=PAD, device=CPU)
    assert {name: rewards.tolist() for name, rewards in batch.component_rewards.items()} == {
        "a": [1.0, 0.0],
        "b": [0.5, 0.25],
    }

"""What is evaluated before an update: all that is needed, aligned, and nothing else."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from support.scripted import CASES, PAD, Case, Outcome, run_update, scripted_groups, tiny_policy

from reasonrl import Needs
from reasonrl.contracts.batch import PolicyEval, TrainBatch
from reasonrl.data.collate import collate
from reasonrl.model.policy import PolicyModule
from reasonrl.trainer import update as update_module
from reasonrl.trainer.policy_eval import evaluate_policy, policy_logprobs
from reasonrl.trainer.ranks import Ranks

GROUPS = scripted_groups(4, 2)


def evaluate(needs: Needs, *, used_once: bool, max_tokens: int = 10_000) -> PolicyEval:
    return evaluate_policy(
        tiny_policy(CASES["ppo"]),
        tiny_policy(CASES["grpo"], seed=9),
        collate(GROUPS, pad_id=PAD, device=torch.device("cpu")),
        needs=needs,
        used_once=used_once,
        temperature=0.7,
        max_tokens=max_tokens,
        ranks=Ranks(Accelerator(cpu=True)),
    )


@pytest.mark.parametrize(
    ("needs", "used_once", "old", "ref", "values"),
    [
        (Needs(), True, False, False, False),
        (Needs(), False, False, False, False),
        (Needs(old_for_advantages=True), True, True, False, False),
        (Needs(reference=True), True, False, True, False),
        (Needs(critic=True), True, False, False, True),
        (Needs(critic=True, reference=True), False, True, True, True),
    ],
)
def test_only_what_is_needed(needs: Needs, used_once: bool, old: bool, ref: bool, values: bool) -> None:
    evals = evaluate(needs, used_once=used_once)
    known = [t is not None for t in (evals.old_logprobs, evals.ref_logprobs, evals.values)]
    assert known == [old, ref, values]


def test_every_row_stands_where_it_belongs_whatever_the_micro_batches() -> None:
    needs = Needs(critic=True, reference=True)
    batch = collate(GROUPS, pad_id=PAD, device=torch.device("cpu"))
    masks = batch.input_ids, batch.attention_mask, batch.response_mask
    with torch.no_grad():
        policy = tiny_policy(CASES["ppo"])(*masks, temperature=0.7, values=True)
        reference = tiny_policy(CASES["grpo"], seed=9)(*masks, temperature=0.7)
    for max_tokens in (1, 25, 10_000):
        cut = evaluate(needs, used_once=False, max_tokens=max_tokens)
        torch.testing.assert_close(cut.old_logprobs, policy.logprobs, rtol=0, atol=1e-9)
        torch.testing.assert_close(cut.values, policy.values, rtol=0, atol=1e-9)
        torch.testing.assert_close(cut.ref_logprobs, reference.logprobs, rtol=0, atol=1e-9)
        assert cut.old_logprobs is not None
        assert not cut.old_logprobs.requires_grad


def test_a_batch_that_is_used_twice_is_compared_with_the_policy_before_its_first_use() -> None:
    outcome = run_update(
        CASES["grpo"], tiny_policy(CASES["grpo"]), scripted_groups(4, 2), group_size=2, update_epochs=2
    )
    assert outcome.metrics["policy/ratio_max"] > 1.001


@pytest.mark.parametrize(("minibatches", "update_epochs"), [(2, 1), (4, 1), (1, 2), (2, 2)])
@pytest.mark.parametrize("name", ["grpo", "grpo_sequence_kl"])
def test_fewer_old_logprobs_change_nothing(name: str, minibatches: int, update_epochs: int) -> None:
    case = CASES[name]

    @dataclass(frozen=True)
    class AllBefore(Case):
        @property
        def needs(self) -> Needs:
            return replace(case.needs, old_for_advantages=True)

    def update(tried: Case) -> Outcome:
        settings = {"minibatches": minibatches, "update_epochs": update_epochs}
        return run_update(tried, tiny_policy(case), scripted_groups(8, 2), group_size=2, **settings)

    expected, found = update(AllBefore(case.name, case.config)), update(case)
    for key, value in expected.parameters.items():
        torch.testing.assert_close(found.parameters[key], value, rtol=0, atol=1e-9)
    assert found.metrics == pytest.approx(expected.metrics, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize(("minibatches", "update_epochs", "expected"), [(1, 1, []), (2, 1, [2]), (1, 2, [0, 1])])
def test_old_logprobs_are_computed_for_rows_that_need_them(
    minibatches: int, update_epochs: int, expected: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def counted(policy: PolicyModule, batch: TrainBatch, rows: Sequence[int], **settings: Any) -> torch.Tensor:
        asked.extend(rows)
        return policy_logprobs(policy, batch, rows, **settings)

    monkeypatch.setattr(update_module, "policy_logprobs", counted)
    groups = scripted_groups(2, 2, unscored=False)
    rewards = [[0.0, 1.0], [1.0, 1.0]]  # the second group has no gradient: one row of it stays
    groups = [
        replace(group, rewards=tuple(replace(r, total=value) for r, value in zip(group.rewards, values, strict=True)))
        for group, values in zip(groups, rewards, strict=True)
    ]
    settings = {"minibatches": minibatches, "update_epochs": update_epochs}
    run_update(CASES["grpo"], tiny_policy(CASES["grpo"]), groups, group_size=2, **settings)
    assert asked == expected

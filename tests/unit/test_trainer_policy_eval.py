"""What is evaluated before an update: all that is needed, aligned, and nothing else."""

import pytest
import torch
from accelerate import Accelerator
from support.scripted import CASES, PAD, run_update, scripted_groups, tiny_policy

from reasonrl import Needs
from reasonrl.contracts.batch import PolicyEval
from reasonrl.data.collate import collate
from reasonrl.trainer.policy_eval import evaluate_policy
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
        (Needs(), False, True, False, False),
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

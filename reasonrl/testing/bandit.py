"""A three-armed bandit, the smallest learning problem; the policy is three logits."""

from __future__ import annotations

import torch
from torch import Tensor

from reasonrl.contracts.batch import LossInput, PolicyEval, StepContext, TrainBatch
from reasonrl.contracts.protocols import Algorithm
from reasonrl.contracts.specs import Needs
from reasonrl.testing.batches import normalizer_of

ARMS, BEST = 3, 2
STEPS, GROUPS = 60, 8


def probability_of_the_best(algorithm: Algorithm, needs: Needs, *, group_size: int) -> float:
    """Train for sixty steps with Adam and return the probability of the best arm, initially 1/3."""
    generator = torch.Generator().manual_seed(11)
    logits = torch.zeros(ARMS, requires_grad=True)
    value = torch.zeros((), requires_grad=True)
    optimizer = torch.optim.Adam([logits, value], lr=0.1)
    for step in range(1, STEPS + 1):
        ctx = StepContext(step=step, total_steps=STEPS, policy_version=step - 1)
        optimizer.zero_grad()
        _loss(algorithm, needs, _pull(logits, needs, group_size, generator), logits, value, ctx).backward()
        optimizer.step()
    return float(torch.softmax(logits.detach(), -1)[BEST])


def _pull(logits: Tensor, needs: Needs, group_size: int, generator: torch.Generator) -> TrainBatch:
    """Sample a batch: a prompt of one token and a completion of one token, the arm."""
    rows = GROUPS * group_size
    shares = torch.softmax(logits.detach(), -1)
    arms = torch.multinomial(shares, rows, replacement=True, generator=generator)
    ids = torch.stack([torch.zeros_like(arms), arms], dim=1)
    logprobs = torch.log_softmax(logits.detach(), -1)[ids]
    response = torch.tensor([[False, True]]).expand(rows, 2)
    paid = (arms == BEST).float()
    return TrainBatch(
        input_ids=ids,
        attention_mask=torch.ones_like(ids, dtype=torch.bool),
        response_mask=response,
        rollout_logprobs=logprobs if needs.rollout_logprobs else None,
        rewards=paid,
        token_rewards=None,
        scored=torch.ones(rows, dtype=torch.bool),
        truncated=torch.zeros(rows, dtype=torch.bool),
        group_ids=torch.arange(rows) // group_size,
        policy_versions=torch.zeros(rows, dtype=torch.int64),
        component_rewards={"arm": paid},
    )


def _loss(
    algorithm: Algorithm, needs: Needs, batch: TrainBatch, logits: Tensor, value: Tensor, ctx: StepContext
) -> Tensor:
    shares = torch.log_softmax(logits, -1)
    logprobs = shares[batch.input_ids]
    values = value.expand(logprobs.shape) if needs.critic else None
    evals = PolicyEval(
        old_logprobs=logprobs.detach(),
        ref_logprobs=torch.log(torch.tensor(1 / ARMS)).expand(logprobs.shape) if needs.reference else None,
        values=None if values is None else values.detach(),
    )
    advantages = algorithm.compute_advantages(batch, evals, ctx)
    entropy = -(shares.exp() * shares).sum().expand(logprobs.shape)
    inputs = LossInput(
        logprobs=logprobs,
        entropy=entropy if needs.entropy == "grad" else entropy.detach(),
        values=values,
        batch=batch,
        evals=evals,
        advantages=advantages,
    )
    return algorithm.compute_loss(inputs, normalizer_of(algorithm, batch, advantages), ctx).loss

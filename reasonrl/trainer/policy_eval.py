"""Forward passes without gradient: old and reference log-probabilities, values."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from reasonrl.contracts.batch import PolicyEval, TrainBatch
from reasonrl.contracts.specs import Needs
from reasonrl.model.reference import Reference
from reasonrl.trainer.microbatch import Cutting
from reasonrl.trainer.ranks import Ranks


def evaluate_policy(
    policy: nn.Module,
    reference: Reference | None,
    batch: TrainBatch,
    *,
    needs: Needs,
    used_once: bool,
    temperature: float,
    max_tokens: int,
    ranks: Ranks,
) -> PolicyEval:
    """Run what the advantages need.

    Old log-probabilities are among it if the algorithm reads them there, or if the critic's pass gives them anyway.
    Else the update gets them itself, for fewer rows.
    """
    want_old = needs.old_for_advantages or (needs.critic and not used_once)
    old = values = ref = None
    cutting, rows = Cutting.of_batch(batch, policy), range(batch.num_rows)
    if want_old or needs.critic:
        old, values = _forward_rows(
            policy, batch, cutting, rows, temperature, values=needs.critic, max_tokens=max_tokens, ranks=ranks
        )
    if needs.reference:
        assert reference is not None
        ref, _ = _forward_rows(
            reference, batch, cutting, rows, temperature, values=False, max_tokens=max_tokens, ranks=ranks
        )
    # The update's own forward gives a ratio of exactly 1, which another pass in lower precision may not.
    return PolicyEval(old_logprobs=old if want_old else None, ref_logprobs=ref, values=values)


def policy_logprobs(
    policy: nn.Module, batch: TrainBatch, rows: Sequence[int], *, temperature: float, max_tokens: int, ranks: Ranks
) -> Tensor:
    """Log-probabilities ``[B, T]`` of ``rows``, in nats; 0 in other rows. Every rank calls it, also without rows."""
    cutting = Cutting.of_batch(batch, policy)
    logprobs, _ = _forward_rows(
        policy, batch, cutting, rows or [0], temperature, values=False, max_tokens=max_tokens, ranks=ranks
    )
    return logprobs


@torch.no_grad()
def _forward_rows(
    module: nn.Module | Reference,
    batch: TrainBatch,
    cutting: Cutting,
    wanted: Sequence[int],
    temperature: float,
    *,
    values: bool,
    max_tokens: int,
    ranks: Ranks,
) -> tuple[Tensor, Tensor | None]:
    lengths = cutting.lengths
    plan = cutting.plan(wanted, max_tokens)
    plan += [[0]] * (ranks.max(len(plan)) - len(plan))  # every rank enters the module equally often
    logprobs: Tensor | None = None
    all_values: Tensor | None = None
    for rows in plan:
        index = torch.tensor(rows, device=batch.input_ids.device)
        part = batch.select(index, max(lengths[row] for row in rows))
        asked = {"values": True} if values else {}  # a reference has no critic to ask
        # The policy is wrapped in autocast already, the reference is not: both must round alike.
        with ranks.autocast():
            out = module(part.input_ids, part.attention_mask, part.response_mask, temperature=temperature, **asked)
        logprobs = _place(logprobs, out.logprobs, index, batch)
        all_values = _place(all_values, out.values, index, batch) if out.values is not None else None
    assert logprobs is not None  # at least one row is wanted
    return logprobs, all_values


def _place(whole: Tensor | None, part: Tensor, index: Tensor, batch: TrainBatch) -> Tensor:
    """Put the rows ``index`` into a ``[B, T]`` tensor of the model's own precision."""
    if whole is None:
        whole = part.new_zeros(batch.input_ids.shape)
    whole[index, : part.shape[1]] = part
    return whole

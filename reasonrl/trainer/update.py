"""One batch -> optimizer steps: update epochs x minibatches x micro-batches.

Micro-batch losses sum to the full-batch loss, because every count they are divided by is taken over the whole
optimizer step and all ranks beforehand. So neither micro-batch size, row order, padding nor the number of
processes changes the gradient.
"""

import math
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor
from torch.nn import Parameter

from reasonrl.contracts.batch import (
    AdvantageOutput,
    LossInput,
    LossNormalizer,
    PolicyEval,
    StepContext,
    TrainBatch,
    UpdateOutput,
)
from reasonrl.contracts.metrics import Metric, mean
from reasonrl.contracts.specs import Needs
from reasonrl.errors import TrainingError
from reasonrl.trainer.microbatch import padded_tokens, plan_microbatches
from reasonrl.trainer.ranks import Ranks

MAX_CONSECUTIVE_SKIPS = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class UpdateSettings:
    """How a batch is cut up. ``max_grad_norm`` bounds the L2 norm of each parameter group (policy, critic)."""

    minibatches: int
    update_epochs: int
    max_tokens_per_microbatch: int
    max_grad_norm: float
    temperature: float
    critic_warmup_steps: int = 0


@dataclass(frozen=True, slots=True)
class _Inputs:
    batch: TrainBatch
    evals: PolicyEval
    advantages: AdvantageOutput

    def select(self, rows: Tensor, length: int) -> "_Inputs":
        return _Inputs(
            self.batch.select(rows, length),
            self.evals.select(rows, length),
            self.advantages.select(rows, length),
        )


class Updater:
    """Owns the optimizer's part of a step. ``policy_version`` counts finished optimizer steps."""

    def __init__(
        self,
        *,
        policy: Any,
        optimizer: Any,
        algorithm: Any,
        needs: Needs,
        settings: UpdateSettings,
        accelerator: Accelerator,
        ranks: Ranks,
    ) -> None:
        self._policy = policy
        self._optimizer = optimizer
        self._algorithm = algorithm
        self._needs = needs
        self._settings = settings
        self._accelerator = accelerator
        self._ranks = ranks
        self._consecutive_skips = 0
        self.policy_version = 0

    def update(
        self, batch: TrainBatch, evals: PolicyEval, advantages: AdvantageOutput, ctx: StepContext
    ) -> UpdateOutput:
        """Every optimizer step of this batch. Raises TrainingError after three non-finite updates in a row."""
        inputs = _Inputs(batch, evals, advantages)
        parts: list[Mapping[str, Metric]] = [advantages.metrics]
        skipped = 0
        for epoch in range(self._settings.update_epochs):
            for rows in _minibatch_rows(batch.num_rows, self._settings.minibatches):
                metrics, was_skipped = self._optimizer_step(inputs, rows, ctx, first_epoch=epoch == 0)
                parts.extend(metrics)
                skipped += was_skipped
        return UpdateOutput(
            metrics=self._ranks.resolve(parts), policy_version=self.policy_version, num_skipped=skipped
        )

    def _optimizer_step(
        self, inputs: _Inputs, rows: range, ctx: StepContext, *, first_epoch: bool
    ) -> tuple[list[Mapping[str, Metric]], int]:
        normalizer = self._count(inputs, rows)
        lengths: list[int] = inputs.batch.attention_mask.sum(dim=1).tolist()
        plan = plan_microbatches(
            lengths, _rows_with_gradient(inputs, rows), self._settings.max_tokens_per_microbatch
        )
        metrics: list[Mapping[str, Metric]] = [_work_metrics(lengths, plan, rows)]
        # Ranks enter the module equally often; a rank that ran out repeats a row with its mask cleared.
        dummies = self._ranks.max(max(1, len(plan))) - len(plan)
        schedule = [(p, False) for p in plan] + [([rows[0]], True)] * dummies
        local_loss = 0.0
        for position, (chosen, is_dummy) in enumerate(schedule):
            part = self._part(inputs, chosen, lengths, is_dummy=is_dummy)
            with self._no_sync(last=position == len(schedule) - 1):
                share, of_part = self._backward(part, normalizer, ctx, first_epoch=first_epoch)
            local_loss += share
            metrics.append(of_part)
        loss = self._ranks.sums([local_loss])[0]
        norms, was_skipped = self._apply(ctx, loss)
        # A NaN in a mean would hide the finite minibatches; a skip has a metric of its own.
        total = {"loss/total": mean(loss, 1.0)} if math.isfinite(loss) else {}
        return [*metrics, total, norms], was_skipped

    def _part(
        self, inputs: _Inputs, rows: Sequence[int], lengths: Sequence[int], *, is_dummy: bool
    ) -> _Inputs:
        index = torch.tensor(list(rows), device=inputs.batch.input_ids.device)
        part = inputs.select(index, max(lengths[row] for row in rows))
        if not is_dummy:
            return part
        cleared = replace(part.batch, response_mask=torch.zeros_like(part.batch.response_mask))
        return replace(part, batch=cleared)

    def _backward(
        self, part: _Inputs, normalizer: LossNormalizer, ctx: StepContext, *, first_epoch: bool
    ) -> tuple[float, Mapping[str, Metric]]:
        batch = part.batch
        out = self._policy(
            batch.input_ids,
            batch.attention_mask,
            batch.response_mask,
            temperature=self._settings.temperature,
            entropy=self._needs.entropy,
            values=self._needs.critic,
        )
        evals = part.evals
        if evals.old_logprobs is None:
            evals = replace(evals, old_logprobs=out.logprobs.detach())
        loss = self._algorithm.compute_loss(
            LossInput(
                logprobs=out.logprobs,
                entropy=out.entropy,
                values=out.values,
                batch=batch,
                evals=evals,
                advantages=part.advantages,
            ),
            normalizer,
            ctx,
        )
        # DDP averages gradients over ranks; the loss is a share of the global sum.
        self._accelerator.backward(loss.loss * self._ranks.size)
        gap = rollout_gap(evals.old_logprobs, batch) if first_epoch else {}
        return float(loss.loss.detach()), {**loss.metrics, **gap}

    def _no_sync(self, *, last: bool) -> Any:
        return nullcontext() if last or self._ranks.size == 1 else self._accelerator.no_sync(self._policy)

    def _count(self, inputs: _Inputs, rows: range) -> LossNormalizer:
        """Counts over the whole optimizer step: every scored row, also those whose gradient is zero."""
        index = torch.arange(rows.start, rows.stop, device=inputs.batch.input_ids.device)
        part = inputs.select(index, inputs.batch.input_ids.shape[1])
        tokens = part.batch.response_mask.sum(dim=1)
        counts = getattr(self._algorithm, "counts", None)
        extra: dict[str, float] = counts(part.batch, part.advantages) if counts else {}
        keys = sorted(extra)
        total = self._ranks.sums(
            [float(tokens.sum()), float((tokens > 0).sum()), *(extra[key] for key in keys)]
        )
        return LossNormalizer(
            num_response_tokens=total[0],
            num_sequences=total[1],
            extra=dict(zip(keys, total[2:], strict=True)),
        )

    def _apply(self, ctx: StepContext, loss: float) -> tuple[Mapping[str, Metric], int]:
        """Clip and step; or, if loss or gradient is not finite, skip and leave every parameter as it was."""
        critic_only = ctx.step <= self._settings.critic_warmup_steps
        norms: dict[str, Metric] = {}
        for group in self._optimizer.param_groups:
            if critic_only and group["role"] == "policy":
                for parameter in group["params"]:
                    parameter.grad = None
                continue
            norm = _clip(group["params"], self._settings.max_grad_norm)
            # Every rank holds the same norm; weighting by 1 makes the mean over ranks that norm.
            norms["optim/grad_norm" if group["role"] == "policy" else "critic/grad_norm"] = mean(norm, 1.0)
        finite = math.isfinite(loss) and all(math.isfinite(metric.value) for metric in norms.values())
        if finite:
            self._optimizer.step()
            self.policy_version += 1
        self._optimizer.zero_grad(set_to_none=True)
        return self._judge(norms, finite=finite)

    def _judge(self, norms: dict[str, Metric], *, finite: bool) -> tuple[Mapping[str, Metric], int]:
        if finite:
            self._consecutive_skips = 0
            return norms, 0
        self._consecutive_skips += 1
        if self._consecutive_skips >= MAX_CONSECUTIVE_SKIPS:
            raise TrainingError(
                f"{MAX_CONSECUTIVE_SKIPS} updates in a row had a non-finite loss or gradient; the parameters are "
                "those of the last finite update. Lower optimizer.learning_rate, or look for NaN in the "
                "rewards and log-probabilities of the last transcripts"
            )
        return {}, 1


def _minibatch_rows(num_rows: int, minibatches: int) -> list[range]:
    size = num_rows // minibatches
    return [range(m * size, (m + 1) * size) for m in range(minibatches)]


def _rows_with_gradient(inputs: _Inputs, rows: range) -> list[int]:
    """Rows with at least one response token, less those whose gradient is exactly zero.

    If that leaves none, one row stays: it changes nothing, and entropy and the gap to the sampler stay known.
    """
    alive = inputs.batch.response_mask.any(dim=1)
    with_tokens = alive.tolist()
    if inputs.advantages.contributes is not None:
        alive = alive & inputs.advantages.contributes
    flags = alive.tolist()
    return [row for row in rows if flags[row]] or [row for row in rows if with_tokens[row]][:1]


def _work_metrics(lengths: Sequence[int], plan: Sequence[Sequence[int]], rows: range) -> dict[str, Metric]:
    computed = padded_tokens(lengths, plan)
    real = sum(lengths[row] for part in plan for row in part)
    return {
        "batch/padding_frac": mean(float(computed - real), float(computed)),
        "batch/dropped_frac": mean(float(len(rows) - sum(map(len, plan))), float(len(rows))),
        "batch/train_tokens": Metric(float(real), 1.0, "sum"),
    }


def _clip(parameters: list[Parameter], max_norm: float) -> float:
    norm = torch.nn.utils.clip_grad_norm_(parameters, max_norm)
    full = getattr(norm, "full_tensor", None)  # a sharded (DTensor) norm under FSDP
    return float(full() if full else norm)


@torch.no_grad()
def rollout_gap(old_logprobs: Tensor | None, batch: TrainBatch) -> dict[str, Metric]:
    """How far the trainer's log-probabilities are from the sampler's, over sampled tokens.

    ``policy/kl_rollout_k3``: mean of exp(x) - 1 - x with x = ln p_trainer - ln p_sampler, the k3 estimate of
    KL(sampler || trainer). ``rollout/logprob_gap/*``: |x|. Tokens whose sampler log-probability is not finite are
    left out.
    """
    if old_logprobs is None or batch.rollout_logprobs is None:
        return {}
    mask = batch.response_mask & torch.isfinite(batch.rollout_logprobs)
    gap = (old_logprobs - batch.rollout_logprobs)[mask].double()
    if gap.numel() == 0:
        return {}
    return {
        "policy/kl_rollout_k3": mean((torch.expm1(gap) - gap).sum(), gap.numel()),
        "rollout/logprob_gap/mean": mean(gap.abs().sum(), gap.numel()),
        "rollout/logprob_gap/max": Metric(gap.abs().max(), 1.0, "max"),
    }

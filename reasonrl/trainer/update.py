"""One batch -> optimizer steps: update epochs x minibatches x micro-batches.

Micro-batch losses sum to the full-batch loss, because every count they are divided by is taken over the whole
optimizer step and all ranks beforehand. So neither micro-batch size, row order, padding nor the number of
processes changes the gradient.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim import Optimizer

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
from reasonrl.functional.correction import rollout_correction
from reasonrl.functional.precision import widest_float
from reasonrl.model.reference import Reference
from reasonrl.recipe.correction import RolloutCorrectionConfig
from reasonrl.trainer.algorithm import AlgorithmCalls
from reasonrl.trainer.microbatch import Cutting, Microbatch, accumulate_gradients, work_metrics
from reasonrl.trainer.numerics import BatchCheck, count, count_nonfinite_tokens
from reasonrl.trainer.offload import Offload
from reasonrl.trainer.optim import GuardedOptimizer
from reasonrl.trainer.policy_eval import policy_logprobs
from reasonrl.trainer.ranks import Ranks

_SQUARES = "rollout/weight_squared"
GRAD_NORM_KEYS = {"policy": "optim/grad_norm", "critic": "critic/grad_norm"}


@dataclass(frozen=True, kw_only=True, slots=True)
class UpdateSettings:
    """How a batch is cut up. ``max_grad_norm`` bounds the L2 norm of each parameter group (policy, critic)."""

    minibatches: int
    update_epochs: int
    max_tokens_per_microbatch: int
    max_grad_norm: float
    temperature: float
    critic_warmup_steps: int = 0
    offload: Sequence[str] = ()
    correction: RolloutCorrectionConfig | None = None


@dataclass(frozen=True, slots=True)
class _Inputs:
    batch: TrainBatch
    evals: PolicyEval
    advantages: AdvantageOutput

    def select(self, rows: Tensor, length: int) -> "_Inputs":
        return _Inputs(
            self.batch.select(rows, length), self.evals.select(rows, length), self.advantages.select(rows, length)
        )


class Updater:
    """Owns policy, optimizer and algorithm; takes the optimizer steps.

    ``policy_version`` counts those that moved the policy. ``reference``: the frozen starting model's forward, if the
    algorithm needs it.
    """

    def __init__(
        self,
        *,
        policy: nn.Module,
        optimizer: Optimizer,
        algorithm: AlgorithmCalls,
        needs: Needs,
        settings: UpdateSettings,
        accelerator: Accelerator,
        ranks: Ranks,
        reference: Reference | None = None,
    ) -> None:
        self.policy, self.reference = policy, reference
        self.optimizer = optimizer
        weights = reference.weights if reference is not None else None
        self.offload = Offload(settings.offload, accelerator.device, optimizer, weights)
        self.guard = GuardedOptimizer(optimizer, settings.max_grad_norm)
        self.algorithm = algorithm
        self.needs = needs
        self._settings = settings
        self._accelerator = accelerator
        self._ranks = ranks
        self.policy_version = 0
        self.see: Callable[[Sequence[int], Tensor, Tensor | None], None] | None = None
        """Called with rows, old log-probabilities and entropy after every forward pass of the first epoch."""
        self.trained: Callable[[Sequence[int]], None] | None = None
        """Called with the rows of every optimizer step that go through it."""

    def update(
        self, batch: TrainBatch, evals: PolicyEval, advantages: AdvantageOutput, ctx: StepContext
    ) -> UpdateOutput:
        """Every optimizer step of this batch, or as many as it takes to be stuck.

        An optimizer step whose rewards, log-probabilities, values, advantages, loss or gradient are not all finite
        is skipped. After ``MAX_CONSECUTIVE_SKIPS`` of them in a row the update ends early; the output says so.
        """
        steps = list(self._optimizer_steps(batch.num_rows))
        first = _Inputs(batch, evals, advantages)
        later = self._with_old(first, steps)
        check = BatchCheck(batch, later.evals, advantages, needs_rollout_logprobs=self.needs.rollout_logprobs)
        parts: list[Mapping[str, Metric]] = [advantages.metrics, check.metrics]
        skipped = 0
        for number, (first_epoch, rows) in enumerate(steps):
            inputs = first if number == 0 and self._settings.update_epochs == 1 else later
            if self._ranks.sums([check.bad_rows(rows)])[0]:
                self.guard.skip()
                parts.append(_work_metrics(Cutting([], packs=False), [], range(0)))
            else:
                parts.extend(self._optimizer_step(inputs, rows, ctx, first_epoch=first_epoch))
            skipped += self.guard.consecutive_skips > 0
            if self.guard.is_stuck:
                break
        return UpdateOutput(
            metrics=_with_sample_size(self._ranks.resolve(parts)),
            policy_version=self.policy_version,
            num_skipped=skipped,
            num_consecutive_skips=self.guard.consecutive_skips,
        )

    def _optimizer_steps(self, num_rows: int) -> Iterator[tuple[bool, range]]:
        """(is it the first pass, rows) of each optimizer step."""
        size = num_rows // self._settings.minibatches
        for epoch in range(self._settings.update_epochs):
            for m in range(self._settings.minibatches):
                yield epoch == 0, range(m * size, (m + 1) * size)

    def _with_old(self, inputs: _Inputs, steps: Sequence[tuple[bool, range]]) -> _Inputs:
        """Add old log-probabilities of the rows that are trained on after another optimizer step.

        A row that is trained on once, in the first optimizer step, needs no pass of its own: that step's forward gives
        them, detached.
        """
        if inputs.evals.old_logprobs is not None or len(steps) == 1:
            return inputs
        settings = self._settings
        later = steps if settings.update_epochs > 1 else steps[1:]
        old = policy_logprobs(
            self.policy,
            inputs.batch,
            sorted({row for _, rows in later for row in _rows_with_gradient(inputs, rows)}),
            temperature=settings.temperature,
            max_tokens=settings.max_tokens_per_microbatch,
            ranks=self._ranks,
        )
        return replace(inputs, evals=replace(inputs.evals, old_logprobs=old))

    def _optimizer_step(
        self, inputs: _Inputs, rows: range, ctx: StepContext, *, first_epoch: bool
    ) -> list[Mapping[str, Metric]]:
        normalizer = self._count(inputs, rows)
        cutting = Cutting.of_batch(inputs.batch, self.policy)
        lengths = cutting.lengths
        plan = cutting.plan(_rows_with_gradient(inputs, rows), self._settings.max_tokens_per_microbatch)
        if self.trained is not None:
            self.trained([row for part in plan for row in part])
        metrics: list[Mapping[str, Metric]] = []
        local_broken = 0

        def compute_loss(micro: Microbatch) -> Tensor:
            nonlocal local_broken
            part = self._part(inputs, micro, lengths)
            rows_seen = micro.rows if first_epoch and not micro.is_dummy else ()
            loss, broken, of_part = self._loss(part, normalizer, ctx, rows_seen, first_epoch=first_epoch)
            local_broken += broken
            metrics.append(of_part)
            return loss

        local_loss = accumulate_gradients(
            self.policy, plan, compute_loss, spare_row=rows[0], accelerator=self._accelerator, ranks=self._ranks
        )
        # A clamp may hide a broken log-probability from loss and gradient, so it is counted by itself.
        loss, broken_tokens = self._ranks.sums([local_loss, local_broken])
        outcome = self._apply(ctx, loss, is_finite=math.isfinite(loss) and not broken_tokens)
        # A NaN in a mean would hide the finite minibatches; a skipped step has metrics of its own.
        kept = [] if self.guard.consecutive_skips else metrics
        return [*kept, _work_metrics(cutting, plan, rows), outcome, count("logprobs", local_broken)]

    def _part(self, inputs: _Inputs, micro: Microbatch, lengths: Sequence[int]) -> _Inputs:
        index = torch.tensor(list(micro.rows), device=inputs.batch.input_ids.device)
        part = inputs.select(index, max(lengths[row] for row in micro.rows))
        if not micro.is_dummy:
            return part
        cleared = replace(part.batch, response_mask=torch.zeros_like(part.batch.response_mask))
        return replace(part, batch=cleared)

    def _loss(
        self, part: _Inputs, normalizer: LossNormalizer, ctx: StepContext, rows: Sequence[int], *, first_epoch: bool
    ) -> tuple[Tensor, int, Mapping[str, Metric]]:
        """This micro-batch's loss, how many of its log-probabilities are not finite, and its metrics."""
        batch = part.batch
        out = self.policy(
            batch.input_ids,
            batch.attention_mask,
            batch.response_mask,
            temperature=self._settings.temperature,
            entropy=self.needs.entropy,
            values=self.needs.critic,
        )
        evals = part.evals
        if evals.old_logprobs is None:
            evals = replace(evals, old_logprobs=out.logprobs.detach())
        if self.see is not None and evals.old_logprobs is not None:
            self.see(rows, evals.old_logprobs, out.entropy)
        advantages, correction = self._correct(part, evals)
        loss = self.algorithm.compute_loss(
            LossInput(
                logprobs=out.logprobs,
                entropy=out.entropy,
                values=out.values,
                batch=batch,
                evals=evals,
                advantages=advantages,
            ),
            normalizer,
            ctx,
        )
        gap = measure_rollout_gap(evals.old_logprobs, batch, ctx.policy_version) if first_epoch else {}
        broken = count_nonfinite_tokens(out.logprobs, batch.response_mask)
        return loss.loss, broken, {**loss.metrics, **gap, **correction}

    def _correct(self, part: _Inputs, evals: PolicyEval) -> tuple[AdvantageOutput, Mapping[str, Metric]]:
        """Advantages times the weights for the sampler: a policy term is linear in them. Value targets stay."""
        settings, batch = self._settings.correction, part.batch
        if settings is None or batch.rollout_logprobs is None or evals.old_logprobs is None:
            return part.advantages, {}
        found = rollout_correction(
            evals.old_logprobs,
            batch.rollout_logprobs,
            batch.response_mask,
            level=settings.level,
            mode=settings.mode,
            threshold=settings.threshold,
            threshold_low=settings.threshold_low,
        )
        tokens, weights = batch.response_mask.sum(), found.weights
        metrics = {
            "rollout/corrected_frac": mean(found.bounded.sum(), tokens),
            "rollout/weight": mean(weights.sum(), tokens),
            _SQUARES: mean((weights**2).sum(), tokens),
        }
        return replace(part.advantages, advantages=part.advantages.advantages * weights), metrics

    def _count(self, inputs: _Inputs, rows: range) -> LossNormalizer:
        """Counts over the whole optimizer step: every scored row, also those whose gradient is zero."""
        index = torch.arange(rows.start, rows.stop, device=inputs.batch.input_ids.device)
        part = inputs.select(index, inputs.batch.input_ids.shape[1])
        tokens = part.batch.response_mask.sum(dim=1)
        extra = self.algorithm.counts(part.batch, part.advantages)
        keys = sorted(extra)
        total = self._ranks.sums([float(tokens.sum()), float((tokens > 0).sum()), *(extra[key] for key in keys)])
        return LossNormalizer(
            num_response_tokens=total[0], num_sequences=total[1], extra=dict(zip(keys, total[2:], strict=True))
        )

    def _apply(self, ctx: StepContext, loss: float, *, is_finite: bool) -> dict[str, Metric]:
        """Clip and step, or skip; and what that says in metrics."""
        critic_only = ctx.step <= self._settings.critic_warmup_steps
        result = self.guard.step(is_finite=is_finite, frozen=("policy",) if critic_only else ())
        # Every rank holds the same loss and norms: a count by rank would be as many times too high.
        share = 1.0 / self._ranks.size
        metrics = {
            **count("losses", share * (not math.isfinite(loss))),
            **count("gradients", share * (not result.has_finite_gradient)),
        }
        if math.isfinite(loss):
            metrics["loss/total"] = mean(loss, 1.0)
        if result.is_taken:
            self.policy_version += not critic_only  # else the sampler would be given the weights it has
            metrics |= {GRAD_NORM_KEYS[role]: mean(norm, 1.0) for role, norm in result.norms.items()}
        return metrics


def _with_sample_size(metrics: Mapping[str, float]) -> dict[str, float]:
    """(sum w)^2 / (n sum w^2), the share of samples that the weights are worth, instead of the mean square."""
    kept = {key: value for key, value in metrics.items() if key != _SQUARES}
    if metrics.get(_SQUARES):
        kept["rollout/effective_sample_frac"] = metrics["rollout/weight"] ** 2 / metrics[_SQUARES]
    return kept


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


def _work_metrics(cutting: Cutting, plan: Sequence[Sequence[int]], rows: range) -> dict[str, Metric]:
    real, computed = cutting.count(plan)
    return {
        **work_metrics(real, computed),
        "batch/dropped_frac": mean(float(len(rows) - sum(map(len, plan))), float(len(rows))),
        "batch/train_tokens": Metric(float(real), 1.0, "sum"),
    }


@torch.no_grad()
def measure_rollout_gap(old_logprobs: Tensor | None, batch: TrainBatch, policy_version: int) -> dict[str, Metric]:
    """How far the trainer's log-probabilities are from the sampler's, over sampled tokens.

    ``policy/kl_rollout_k3``: mean of exp(x) - 1 - x with x = ln p_trainer - ln p_sampler, the k3 estimate of
    KL(sampler || trainer). ``rollout/logprob_gap*``: |x|. Left out are tokens whose sampler log-probability is not
    finite. Rows that an earlier version of the policy sampled have ``policy/kl_stale_k3`` instead: their gap does not
    come from the sampler.
    """
    if old_logprobs is None or batch.rollout_logprobs is None:
        return {}
    is_fresh = (batch.policy_versions == policy_version)[:, None]
    known = batch.response_mask & torch.isfinite(batch.rollout_logprobs)
    gaps = (old_logprobs - batch.rollout_logprobs).to(widest_float(known.device))
    metrics: dict[str, Metric] = {}
    if (stale := gaps[known & ~is_fresh]).numel():
        metrics["policy/kl_stale_k3"] = _mean_k3(stale)
    if (gap := gaps[known & is_fresh]).numel():
        metrics["policy/kl_rollout_k3"] = _mean_k3(gap)
        metrics["rollout/logprob_gap"] = mean(gap.abs().sum(), gap.numel())
        metrics["rollout/logprob_gap_max"] = Metric(gap.abs().max(), 1.0, "max")
    return metrics


def _mean_k3(gap: Tensor) -> Metric:
    return mean((torch.expm1(gap) - gap).sum(), gap.numel())

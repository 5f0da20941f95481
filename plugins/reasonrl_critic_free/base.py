"""What the algorithms without a critic share."""

from abc import ABC, abstractmethod
from dataclasses import replace
from typing import Generic, TypeVar

from torch import Tensor

from reasonrl import AlgorithmContext, Metric
from reasonrl.contracts.batch import (
    AdvantageOutput,
    LossInput,
    LossNormalizer,
    LossOutput,
    PolicyEval,
    StepContext,
    TrainBatch,
)
from reasonrl.contracts.metrics import mean
from reasonrl.functional.aggregate import token_mean_share
from reasonrl.functional.diagnostics import policy_metrics, required
from reasonrl.functional.group import Scale, group_advantages
from reasonrl.functional.kl import kl_estimate, kl_loss
from reasonrl.functional.kl_control import KLCoefficient, KLControlled
from reasonrl.functional.masked import masked_sum, zero_outside
from reasonrl.functional.surrogate import Surrogate
from reasonrl_critic_free.config import CommonConfig

C = TypeVar("C", bound=CommonConfig)


class CriticFree(KLControlled, ABC, Generic[C]):
    """Advantages from rewards alone, then a surrogate loss, averaged over the optimizer step.

    L = mean of [ surrogate(r, A) + kl.coef * KL - entropy_coef * H ]. A subclass chooses the advantages, the surrogate
    and the mean.
    """

    def __init__(self, config: C, context: AlgorithmContext) -> None:
        self.config = config
        self.context = context
        self.kl = KLCoefficient(
            config.kl.coef, target=config.kl.target, horizon=config.kl.horizon, placement=config.kl.placement
        )

    # What a subclass chooses

    @property
    def scale(self) -> Scale:
        """How the rewards of a group become advantages."""
        return "std"

    @abstractmethod
    def surrogate(self, inputs: LossInput, old: Tensor, mask: Tensor) -> Surrogate:
        """The policy term per token."""

    def share(self, per_token: Tensor, mask: Tensor, normalizer: LossNormalizer) -> Tensor:
        """This micro-batch's share of the mean: over all tokens, unless a subclass says otherwise."""
        return token_mean_share(per_token, mask, normalizer)

    def loss_mask(self, batch: TrainBatch) -> Tensor:
        """``[B, T]`` bool: the tokens that the loss is taken over."""
        return batch.response_mask

    def shaped_rewards(self, batch: TrainBatch) -> Tensor:
        """``[B]``: rewards of whole completions, token rewards included."""
        if batch.token_rewards is None:
            return batch.rewards
        return batch.rewards + masked_sum(batch.token_rewards, batch.response_mask, dim=1)

    def advantages(self, batch: TrainBatch, penalty: Tensor | None, ctx: StepContext) -> Tensor:
        """``[B, T]``; ``penalty`` ``[B, T]`` is the KL penalty to subtract from the rewards."""
        rewards = self.shaped_rewards(batch)
        if penalty is not None:
            rewards = rewards - penalty.sum(dim=1)
        per_row = group_advantages(rewards, batch.group_ids, batch.scored, scale=self.scale)
        return per_row[:, None].expand(batch.response_mask.shape)

    # The algorithm

    def compute_advantages(self, batch: TrainBatch, evals: PolicyEval, ctx: StepContext) -> AdvantageOutput:
        """Advantages of the whole batch, and which rows can have a gradient at all."""
        mask = batch.response_mask
        penalty, metrics = self._penalty(batch, evals)
        advantages = zero_outside(self.advantages(batch, penalty, ctx), mask)
        contributes = self.loss_mask(batch).any(dim=1)
        if self.config.entropy_coef == 0 and not self._kl_in("loss"):
            contributes = contributes & (advantages != 0).any(dim=1)
        return AdvantageOutput(advantages=advantages, contributes=contributes, metrics=metrics | self.kl.metrics)

    def counts(self, batch: TrainBatch, advantages: AdvantageOutput) -> dict[str, float]:
        """What the loss is taken over, of this rank."""
        tokens = self.loss_mask(batch).sum(dim=1)
        return {"tokens": float(tokens.sum()), "sequences": float((tokens > 0).sum())}

    def compute_loss(self, inputs: LossInput, normalizer: LossNormalizer, ctx: StepContext) -> LossOutput:
        """This micro-batch's share of the policy, KL and entropy terms."""
        mask = self.loss_mask(inputs.batch)
        old = required(inputs.evals.old_logprobs, "old_logprobs")
        surrogate = self.surrogate(inputs, old, mask)
        per_token = surrogate.loss
        if self._kl_in("loss"):
            per_token = per_token + self.kl.value * self._kl_loss(inputs, old, mask)
        if self.config.entropy_coef > 0:
            per_token = per_token - self.config.entropy_coef * zero_outside(required(inputs.entropy, "entropy"), mask)
        counted = replace(
            normalizer,
            num_response_tokens=normalizer.extra.get("tokens", normalizer.num_response_tokens),
            num_sequences=normalizer.extra.get("sequences", normalizer.num_sequences),
        )
        return LossOutput(
            loss=self.share(per_token, mask, counted),
            metrics={"loss/policy": self.loss_metric(surrogate, mask), **policy_metrics(inputs, surrogate)},
        )

    def loss_metric(self, surrogate: Surrogate, mask: Tensor) -> Metric:
        """The policy term as it is averaged."""
        return mean(surrogate.loss.detach().sum(), mask.sum())

    # The KL penalty

    def _kl_in(self, placement: str) -> bool:
        return self.config.kl.coef > 0 and self.config.kl.placement == placement

    def _kl_loss(self, inputs: LossInput, old: Tensor, mask: Tensor) -> Tensor:
        estimator = self.config.kl.estimator
        assert estimator != "k1"  # the config refuses it
        ref = required(inputs.evals.ref_logprobs, "ref_logprobs")
        weigh_by = old if self.config.kl.weighted else None
        return kl_loss(inputs.logprobs, ref, mask, estimator, old_logprobs=weigh_by)

    def _penalty(self, batch: TrainBatch, evals: PolicyEval) -> tuple[Tensor | None, dict[str, Metric]]:
        if not self._kl_in("reward"):
            return None, {}
        mask = batch.response_mask
        old = required(evals.old_logprobs, "old_logprobs")
        k1 = kl_estimate(old, required(evals.ref_logprobs, "ref_logprobs"), mask, "k1").detach()
        return self.kl.value * k1, {"policy/kl_ref_k1": mean(k1.sum(), mask.sum())}

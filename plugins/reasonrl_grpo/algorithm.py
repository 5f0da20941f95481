"""Group relative policy optimization."""

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
from reasonrl.functional.aggregate import sequence_mean_share, token_mean_share
from reasonrl.functional.diagnostics import policy_metrics, required
from reasonrl.functional.group import group_advantages
from reasonrl.functional.kl import kl_loss
from reasonrl.functional.masked import masked_mean, masked_sum, zero_outside
from reasonrl.functional.surrogate import Surrogate, clipped_surrogate
from reasonrl_grpo.config import GRPOConfig


class GRPO:
    """Clipped surrogate with one advantage per completion (arXiv:2402.03300 eq. 3).

    L = mean over tokens or completions of [ -min(r A, clip(r) A) + kl_coef * KL - entropy_coef * H ].
    Differs from the paper: the default mean is over tokens, and the standard deviation is never padded.
    """

    def __init__(self, config: GRPOConfig, context: AlgorithmContext) -> None:
        self.config = config

    def compute_advantages(self, batch: TrainBatch, evals: PolicyEval, ctx: StepContext) -> AdvantageOutput:
        """Compute group-normalized advantages, one per completion; token rewards are added to its reward first."""
        mask = batch.response_mask
        rewards = batch.rewards
        if batch.token_rewards is not None:
            rewards = rewards + masked_sum(batch.token_rewards, mask, dim=1)
        per_row = group_advantages(rewards, batch.group_ids, batch.scored, scale=self.config.scale)
        contributes = mask.any(dim=1)
        if self.config.kl_coef == 0 and self.config.entropy_coef == 0:
            contributes = contributes & (per_row != 0)
        return AdvantageOutput(
            advantages=zero_outside(per_row[:, None].expand(mask.shape), mask), contributes=contributes
        )

    def compute_loss(self, inputs: LossInput, normalizer: LossNormalizer, ctx: StepContext) -> LossOutput:
        """Compute this micro-batch's share of the policy, KL and entropy terms."""
        config, mask = self.config, inputs.batch.response_mask
        surrogate = clipped_surrogate(
            inputs.logprobs,
            required(inputs.evals.old_logprobs, "old_logprobs"),
            inputs.advantages.advantages,
            mask,
            eps_low=config.clip_eps,
            eps_high=config.eps_high,
        )
        per_token = surrogate.loss
        if config.kl_coef > 0:
            ref = required(inputs.evals.ref_logprobs, "ref_logprobs")
            per_token = per_token + config.kl_coef * kl_loss(inputs.logprobs, ref, mask, config.kl_estimator)
        if config.entropy_coef > 0:
            entropy = zero_outside(required(inputs.entropy, "entropy"), mask)
            per_token = per_token - config.entropy_coef * entropy
        return LossOutput(
            loss=self._share(per_token, mask, normalizer),
            metrics={"loss/policy": self._loss_metric(surrogate, mask), **policy_metrics(inputs, surrogate)},
        )

    def _share(self, per_token: Tensor, mask: Tensor, normalizer: LossNormalizer) -> Tensor:
        share = token_mean_share if self.config.normalization == "token" else sequence_mean_share
        return share(per_token, mask, normalizer)

    def _loss_metric(self, surrogate: Surrogate, mask: Tensor) -> Metric:
        loss = surrogate.loss.detach()
        if self.config.normalization == "token":
            return mean(masked_sum(loss, mask), mask.sum())
        return mean(masked_mean(loss, mask, dim=1).sum(), mask.any(dim=1).sum())

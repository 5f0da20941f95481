"""Proximal policy optimization on token sequences."""

import torch
from torch import Tensor

from reasonrl import AlgorithmContext, Metric
from reasonrl.contracts.batch import (
    AdvantageOutput,
    LossInput,
    LossNormalizer,
    LossOutput,
    PolicyEval,
    Reduce,
    StepContext,
    TrainBatch,
)
from reasonrl.contracts.metrics import mean
from reasonrl.functional.aggregate import token_mean_share
from reasonrl.functional.diagnostics import policy_metrics, required
from reasonrl.functional.gae import gae, last_token_mask
from reasonrl.functional.kl import kl_estimate, kl_loss
from reasonrl.functional.kl_control import KLCoefficient, KLControlled
from reasonrl.functional.masked import masked_moments, masked_sum, masked_whiten, zero_outside
from reasonrl.functional.surrogate import clipped_surrogate
from reasonrl_ppo.config import PPOConfig


class PPO(KLControlled):
    """Clipped surrogate, clipped value loss, GAE (arXiv:1707.06347, arXiv:1506.02438).

    L = (1/N) sum_t [ -min(r A, clip(r) A) + value_coef * 1/2 max((V - R)^2, (V_clip - R)^2)
                      - entropy_coef * H + kl.coef * KL ]   over the N response tokens of the optimizer step.
    The completion's reward is earned by its last response token; truncation is terminal with its real reward.
    """

    def __init__(self, config: PPOConfig, context: AlgorithmContext) -> None:
        self.config = config
        self.kl = KLCoefficient(
            config.kl.coef, target=config.kl.target, horizon=config.kl.horizon, placement=config.kl.placement
        )

    def compute_advantages(self, batch: TrainBatch, evals: PolicyEval, ctx: StepContext) -> AdvantageOutput:
        """GAE over response tokens; returns are taken before whitening, whitening spans all ranks."""
        mask = batch.response_mask
        values = required(evals.values, "values")
        rewards, metrics = self._token_rewards(batch, evals)
        lam = self._policy_lam(mask, values)
        advantages, returns = gae(rewards, values, mask, gamma=self.config.gamma, lam=lam)
        if self.config.critic_lam is not None:
            _, returns = gae(rewards, values, mask, gamma=self.config.gamma, lam=self.config.critic_lam)
        metrics |= _critic_metrics(values, returns, mask, ctx.reduce)
        if self.config.whiten:
            advantages = masked_whiten(advantages, mask, ctx.reduce)
        return AdvantageOutput(
            advantages=advantages,
            returns=returns,
            contributes=mask.any(dim=1),  # any row with tokens trains the critic, whatever its advantage
            metrics=metrics | self.kl.metrics,
        )

    def compute_loss(self, inputs: LossInput, normalizer: LossNormalizer, ctx: StepContext) -> LossOutput:
        """Compute this micro-batch's share of the policy, value, entropy and KL terms."""
        config, mask = self.config, inputs.batch.response_mask
        surrogate = clipped_surrogate(
            inputs.logprobs,
            required(inputs.evals.old_logprobs, "old_logprobs"),
            inputs.advantages.advantages,
            mask,
            eps_low=config.clip_eps,
            eps_high=config.eps_high,
            dual_clip=config.dual_clip,
        )
        value_loss, value_metrics = self._value_loss(inputs)
        per_token = surrogate.loss + config.value_coef * value_loss
        if config.entropy_coef > 0:
            entropy = zero_outside(required(inputs.entropy, "entropy"), mask)
            per_token = per_token - config.entropy_coef * entropy
        if config.kl.coef > 0 and config.kl.placement == "loss":
            per_token = per_token + self.kl.value * self._kl_loss(inputs)
        metrics = {
            "loss/policy": mean(surrogate.loss.detach().sum(), mask.sum()),
            **value_metrics,
            **policy_metrics(inputs, surrogate),
        }
        return LossOutput(loss=token_mean_share(per_token, mask, normalizer), metrics=metrics)

    def _policy_lam(self, mask: Tensor, values: Tensor) -> float | Tensor:
        """GAE mixing of the policy's advantages, by length if asked (arXiv:2504.05118 eq. 5)."""
        if self.config.lam_alpha is None:
            return self.config.lam
        length = mask.sum(dim=1).to(values.dtype).clamp(min=1.0)
        return (1.0 - 1.0 / (self.config.lam_alpha * length)).clamp(min=0.0)

    def _token_rewards(self, batch: TrainBatch, evals: PolicyEval) -> tuple[Tensor, dict[str, Metric]]:
        """``[B, T]``: the completion's reward on its last token, the tokens' own, minus the KL penalty."""
        mask, config = batch.response_mask, self.config
        rewards = zero_outside(batch.rewards[:, None].expand(mask.shape), last_token_mask(mask))
        if batch.token_rewards is not None:
            rewards = rewards + zero_outside(batch.token_rewards, mask)
        if not (config.kl.coef > 0 and config.kl.placement == "reward"):
            return rewards, {}
        old = required(evals.old_logprobs, "old_logprobs")
        penalty = kl_estimate(old, required(evals.ref_logprobs, "ref_logprobs"), mask, "k1").detach()
        return rewards - self.kl.value * penalty, {"policy/kl_ref_k1": mean(penalty.sum(), mask.sum())}

    def _value_loss(self, inputs: LossInput) -> tuple[Tensor, dict[str, Metric]]:
        """1/2 max((V - R)^2, (V_old + clip(V - V_old) - R)^2) per token ``[b, T]``, 0 outside the mask."""
        mask = inputs.batch.response_mask
        values = zero_outside(required(inputs.values, "values"), mask)
        returns = zero_outside(required(inputs.advantages.returns, "returns"), mask)
        error = (values - returns) ** 2
        metrics: dict[str, Metric] = {}
        if self.config.value_clip is not None:
            old = zero_outside(required(inputs.evals.values, "values"), mask)
            bounded = old + (values - old).clamp(-self.config.value_clip, self.config.value_clip)
            clipped_error = (bounded - returns) ** 2
            # old + (values - old) is not values to the last bit: only a difference over the bound is a clip.
            is_clipped = ((values - old).abs() > self.config.value_clip) & (clipped_error > error)
            metrics["critic/value_clip_frac"] = mean(is_clipped.sum(), mask.sum())
            error = torch.maximum(error, clipped_error)
        loss = 0.5 * error
        metrics["loss/value"] = mean(loss.detach().sum(), mask.sum())
        return loss, metrics

    def _kl_loss(self, inputs: LossInput) -> Tensor:
        estimator = self.config.kl.estimator
        assert estimator != "k1"  # rejected by the config
        ref = required(inputs.evals.ref_logprobs, "ref_logprobs")
        return kl_loss(inputs.logprobs, ref, inputs.batch.response_mask, estimator)


def _critic_metrics(values: Tensor, returns: Tensor, mask: Tensor, reduce: Reduce) -> dict[str, Metric]:
    """Build the metrics; explained variance is already that of the global batch, equal on every rank."""
    count = mask.sum()
    _, _, spread = masked_moments(returns, mask, reduce)
    _, _, residual = masked_moments(zero_outside(returns, mask) - zero_outside(values, mask), mask, reduce)
    is_defined = spread > 1e-12
    explained = 1.0 - residual / torch.where(is_defined, spread, torch.ones_like(spread))
    return {
        "critic/explained_variance": mean(explained * is_defined, is_defined.to(explained.dtype)),
        "critic/values": mean(masked_sum(values, mask), count),
        "critic/returns": mean(masked_sum(returns, mask), count),
    }

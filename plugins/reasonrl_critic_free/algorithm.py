"""The algorithms without a critic, one class each."""

import torch
from torch import Tensor

from reasonrl import Metric
from reasonrl.contracts.batch import LossInput, LossNormalizer, StepContext, TrainBatch
from reasonrl.contracts.data import ScoredGroup
from reasonrl.contracts.metrics import mean
from reasonrl.functional.aggregate import constant_length_share, sequence_mean_share, token_mean_share
from reasonrl.functional.gae import last_token_mask
from reasonrl.functional.group import Scale, group_advantages
from reasonrl.functional.masked import masked_mean, masked_whiten, zero_outside
from reasonrl.functional.surrogate import (
    Surrogate,
    clipped_surrogate,
    sequence_surrogate,
    soft_surrogate,
    trust_region_surrogate,
    weighted_surrogate,
)
from reasonrl_critic_free.base import C, CriticFree
from reasonrl_critic_free.config import (
    CISPOConfig,
    ClipConfig,
    DAPOConfig,
    DPPOConfig,
    DrGRPOConfig,
    GDPOConfig,
    GRPOConfig,
    GSPOConfig,
    MaxRLConfig,
    ReinforcePPBaselineConfig,
    ReinforcePPConfig,
    RLOOConfig,
    SAPOConfig,
)


def mean_of_completions(surrogate: Surrogate, mask: Tensor) -> Metric:
    """The policy term, every completion's mean over its tokens weighing the same."""
    return mean(masked_mean(surrogate.loss.detach(), mask, dim=1).sum(), mask.any(dim=1).sum())


class Clipped(CriticFree[ClipConfig]):
    """With the clipped surrogate of PPO."""

    config: ClipConfig

    def surrogate(self, inputs: LossInput, old: Tensor, mask: Tensor) -> Surrogate:
        return clipped_surrogate(
            inputs.logprobs,
            old,
            inputs.advantages.advantages,
            mask,
            eps_low=self.config.clip_eps,
            eps_high=self.config.eps_high,
        )


class PerSequence(CriticFree[C]):
    """Averaged over completions: each one's mean over its tokens weighs the same."""

    def share(self, per_token: Tensor, mask: Tensor, normalizer: LossNormalizer) -> Tensor:
        return sequence_mean_share(per_token, mask, normalizer)

    def loss_metric(self, surrogate: Surrogate, mask: Tensor) -> Metric:
        return mean_of_completions(surrogate, mask)


class GRPO(Clipped):
    """Clipped surrogate with one advantage per completion (arXiv:2402.03300 eq. 3).

    Differs from the paper: the default mean is over tokens, and the standard deviation is never padded.
    """

    config: GRPOConfig

    @property
    def scale(self) -> Scale:
        return self.config.scale

    def share(self, per_token: Tensor, mask: Tensor, normalizer: LossNormalizer) -> Tensor:
        share = token_mean_share if self.config.normalization == "token" else sequence_mean_share
        return share(per_token, mask, normalizer)

    def loss_metric(self, surrogate: Surrogate, mask: Tensor) -> Metric:
        if self.config.normalization == "token":
            return super().loss_metric(surrogate, mask)
        return mean_of_completions(surrogate, mask)


class DrGRPO(Clipped):
    """A_i = R_i - mean(R), and sums over tokens divided by a constant (arXiv:2503.20783 section 3.2)."""

    config: DrGRPOConfig

    @property
    def scale(self) -> Scale:
        return "none"

    def share(self, per_token: Tensor, mask: Tensor, normalizer: LossNormalizer) -> Tensor:
        length = self.config.length or self.context.sampling.max_completion_tokens
        return constant_length_share(per_token, mask, normalizer, length)


class DAPO(Clipped):
    """Clip-higher, token-level loss, dynamic sampling, soft overlong punishment (arXiv:2503.14476).

    Completions that ``overlong_filter`` drops leave the loss and its denominators, and stay in their group's baseline.
    """

    config: DAPOConfig

    def keep(self, group: ScoredGroup) -> bool:
        """Whether the accuracy lies within the band; without verdicts, whether the rewards differ at all."""
        scored = [reward for reward in group.rewards if reward.total is not None]
        if not scored:
            return False
        verdicts = [reward.correct for reward in scored]
        if any(verdict is None for verdict in verdicts):
            return len({reward.total for reward in scored}) > 1
        return self.config.min_accuracy < sum(map(bool, verdicts)) / len(verdicts) < self.config.max_accuracy

    def shaped_rewards(self, batch: TrainBatch) -> Tensor:
        """With the penalty of eq. 13: 0 up to the buffer, then growing to ``overlong_penalty`` at the limit."""
        rewards, buffer = super().shaped_rewards(batch), self.config.overlong_buffer
        if buffer == 0:
            return rewards
        over = batch.response_mask.sum(dim=1) - (self.context.sampling.max_completion_tokens - buffer)
        return rewards - self.config.overlong_penalty * (over.to(rewards.dtype) / buffer).clamp(0.0, 1.0)

    def loss_mask(self, batch: TrainBatch) -> Tensor:
        if not self.config.overlong_filter:
            return batch.response_mask
        return batch.response_mask & ~batch.truncated[:, None]


class RLOO(CriticFree[RLOOConfig]):
    """REINFORCE leave-one-out (arXiv:2402.14740 section 2.3), the gradient of sum_t ln p_t (R_i - mean of the others).

    The ratio is not clipped; with one update of a batch it is 1. Sums over tokens, means over completions.
    """

    config: RLOOConfig

    @property
    def scale(self) -> Scale:
        return "leave_one_out"

    def surrogate(self, inputs: LossInput, old: Tensor, mask: Tensor) -> Surrogate:
        return weighted_surrogate(inputs.logprobs, old, inputs.advantages.advantages, mask, ratio_max=float("inf"))

    def share(self, per_token: Tensor, mask: Tensor, normalizer: LossNormalizer) -> Tensor:
        return constant_length_share(per_token, mask, normalizer, 1)

    def loss_metric(self, surrogate: Surrogate, mask: Tensor) -> Metric:
        return mean(surrogate.loss.detach().sum(), mask.any(dim=1).sum())


class ReinforcePP(Clipped):
    """Returns to go of reward and KL penalty, normalized over the batch's tokens (arXiv:2501.03262 eqs. 4 and 5)."""

    config: ReinforcePPConfig

    def advantages(self, batch: TrainBatch, penalty: Tensor | None, ctx: StepContext) -> Tensor:
        mask = batch.response_mask
        rewards = zero_outside(batch.rewards[:, None].expand(mask.shape), last_token_mask(mask))
        if batch.token_rewards is not None:
            rewards = rewards + zero_outside(batch.token_rewards, mask)
        if penalty is not None:
            rewards = rewards - penalty
        to_go = rewards.flip(1).cumsum(1).flip(1)
        return masked_whiten(to_go, mask, ctx.reduce)


class ReinforcePPBaseline(Clipped):
    """Rewards less their group's mean, normalized over the batch's tokens (arXiv:2501.03262 eqs. 6 and 7)."""

    config: ReinforcePPBaselineConfig

    @property
    def scale(self) -> Scale:
        return "none"

    def advantages(self, batch: TrainBatch, penalty: Tensor | None, ctx: StepContext) -> Tensor:
        return masked_whiten(super().advantages(batch, penalty, ctx), batch.response_mask, ctx.reduce)


class GSPO(PerSequence[GSPOConfig]):
    """Clipped surrogate of the sequence ratio (arXiv:2507.18071 eq. 5)."""

    config: GSPOConfig

    def surrogate(self, inputs: LossInput, old: Tensor, mask: Tensor) -> Surrogate:
        return sequence_surrogate(
            inputs.logprobs,
            old,
            inputs.advantages.advantages,
            mask,
            eps_low=self.config.clip_eps,
            eps_high=self.config.clip_eps_high,
        )


class CISPO(CriticFree[CISPOConfig]):
    """Weighted REINFORCE with bounded weights, mean over tokens (arXiv:2506.13585 eqs. 4 and 5)."""

    config: CISPOConfig

    def surrogate(self, inputs: LossInput, old: Tensor, mask: Tensor) -> Surrogate:
        return weighted_surrogate(
            inputs.logprobs, old, inputs.advantages.advantages, mask, ratio_max=self.config.ratio_max
        )


class MaxRL(Clipped):
    """A_i = (R_i - mean(R)) / mean(R) (arXiv:2602.02710 algorithm 1)."""

    config: MaxRLConfig

    @property
    def scale(self) -> Scale:
        return "mean"


class GDPO(Clipped):
    """Each reward normalized in its group, then their weighted sum over the batch (arXiv:2601.05242 eqs. 4 to 7)."""

    config: GDPOConfig

    def advantages(self, batch: TrainBatch, penalty: Tensor | None, ctx: StepContext) -> Tensor:
        mask, ids, scored = batch.response_mask, batch.group_ids, batch.scored
        weights = self.context.reward_weights
        total = torch.zeros_like(batch.rewards)
        for name, values in batch.component_rewards.items():
            total = total + weights.get(name, 1.0) * group_advantages(values, ids, scored, scale="std")
        extra = self.shaped_rewards(batch) - batch.rewards
        if penalty is not None:
            extra = extra - penalty.sum(dim=1)
        total = total + group_advantages(extra, ids, scored, scale="none")
        taken = (scored & mask.any(dim=1))[:, None]
        return masked_whiten(total[:, None], taken, ctx.reduce).expand(mask.shape)


class SAPO(PerSequence[SAPOConfig]):
    """A sigmoid gate on the ratio (arXiv:2511.20347 eqs. 5 and 6)."""

    config: SAPOConfig

    def surrogate(self, inputs: LossInput, old: Tensor, mask: Tensor) -> Surrogate:
        return soft_surrogate(
            inputs.logprobs,
            old,
            inputs.advantages.advantages,
            mask,
            temperature_pos=self.config.temperature_pos,
            temperature_neg=self.config.temperature_neg,
        )


class DPPO(CriticFree[DPPOConfig]):
    """A trust region on the change of the token's probability (arXiv:2602.04879 eqs. 12 and 13, Binary-TV)."""

    config: DPPOConfig

    def surrogate(self, inputs: LossInput, old: Tensor, mask: Tensor) -> Surrogate:
        return trust_region_surrogate(
            inputs.logprobs, old, inputs.advantages.advantages, mask, max_change=self.config.max_change
        )

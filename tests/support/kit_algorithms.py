"""A good algorithm, and algorithms that are wrong in one way each."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from reasonrl import Needs
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
from reasonrl.functional.masked import zero_outside


class Good:
    """REINFORCE with the batch's mean reward as baseline. Nothing is wrong with it."""

    def __init__(self, config: Any, context: Any) -> None: ...

    def compute_advantages(self, batch: TrainBatch, evals: PolicyEval, ctx: StepContext) -> AdvantageOutput:
        rewards = zero_outside(batch.rewards, batch.scored)
        per_row = zero_outside(rewards - rewards.sum() / batch.scored.sum(), batch.scored)
        mask = batch.response_mask
        return AdvantageOutput(
            advantages=zero_outside(per_row[:, None].expand(mask.shape), mask), contributes=mask.any(1)
        )

    def per_token(self, inputs: LossInput) -> Tensor:
        mask = inputs.batch.response_mask
        return -zero_outside(inputs.logprobs, mask) * inputs.advantages.advantages

    def compute_loss(self, inputs: LossInput, normalizer: LossNormalizer, ctx: StepContext) -> LossOutput:
        loss = self.per_token(inputs).sum() / normalizer.num_response_tokens
        count = inputs.batch.response_mask.sum()
        return LossOutput(loss=loss, metrics={"loss/policy": mean(loss.detach() * count, count)})


class NoLoss:
    def __init__(self, config: Any, context: Any) -> None: ...

    def compute_advantages(self, batch: TrainBatch, evals: PolicyEval, ctx: StepContext) -> None: ...


class Undeclared(Good):
    def compute_advantages(self, batch: TrainBatch, evals: PolicyEval, ctx: StepContext) -> AdvantageOutput:
        assert evals.ref_logprobs is not None
        return super().compute_advantages(batch, evals, ctx)


class Everywhere(Good):
    """Advantages outside the mask, where nothing reads them."""

    def compute_advantages(self, batch: TrainBatch, evals: PolicyEval, ctx: StepContext) -> AdvantageOutput:
        output = super().compute_advantages(batch, evals, ctx)
        return replace(output, advantages=output.advantages + (~batch.response_mask).float())


class Vector(Good):
    def compute_loss(self, inputs: LossInput, normalizer: LossNormalizer, ctx: StepContext) -> LossOutput:
        return LossOutput(loss=self.per_token(inputs).sum(1))


class Infinite(Good):
    """A finite loss with a slope that is not."""

    def per_token(self, inputs: LossInput) -> Tensor:
        logprobs = zero_outside(inputs.logprobs, inputs.batch.response_mask)
        return super().per_token(inputs) + (logprobs - logprobs.detach()).clamp(min=0).sqrt()


class Unmasked(Good):
    """Multiplies by the mask: NaN times 0 is NaN."""

    def per_token(self, inputs: LossInput) -> Tensor:
        return -inputs.logprobs * inputs.batch.response_mask * inputs.advantages.advantages


class WidthScaled(Good):
    def per_token(self, inputs: LossInput) -> Tensor:
        return super().per_token(inputs) * inputs.logprobs.shape[1] / 10


class FirstRow(Good):
    """The row that happens to stand first counts twice; a part of the batch is not told from the whole."""

    def compute_advantages(self, batch: TrainBatch, evals: PolicyEval, ctx: StepContext) -> AdvantageOutput:
        output = super().compute_advantages(batch, evals, ctx)
        twice = torch.ones_like(batch.rewards)[:, None]
        twice[0] = 2.0
        return replace(output, advantages=output.advantages * twice)


class LocalMean(Good):
    """Divides by the tokens of the micro-batch."""

    def compute_loss(self, inputs: LossInput, normalizer: LossNormalizer, ctx: StepContext) -> LossOutput:
        count = inputs.batch.response_mask.sum().clamp(min=1)
        loss = self.per_token(inputs).sum() / count
        return LossOutput(loss=loss, metrics={"loss/policy": mean(loss.detach() * count, count)})


class UnscoredToo(Good):
    def compute_advantages(self, batch: TrainBatch, evals: PolicyEval, ctx: StepContext) -> AdvantageOutput:
        mask = batch.response_mask
        per_row = zero_outside(batch.rewards - batch.rewards.mean(), batch.scored)
        return AdvantageOutput(advantages=zero_outside(per_row[:, None].expand(mask.shape), mask))


class Dishonest(Good):
    """Leaves out rows that have a gradient."""

    def compute_advantages(self, batch: TrainBatch, evals: PolicyEval, ctx: StepContext) -> AdvantageOutput:
        output = super().compute_advantages(batch, evals, ctx)
        return replace(output, contributes=batch.rewards > 0.5)


class Decaying(Good):
    """Pushes down every log-probability, whatever it earned."""

    def per_token(self, inputs: LossInput) -> Tensor:
        mask = inputs.batch.response_mask
        return super().per_token(inputs) + 0.01 * zero_outside(inputs.logprobs, mask)


class InPlace(Good):
    def compute_loss(self, inputs: LossInput, normalizer: LossNormalizer, ctx: StepContext) -> LossOutput:
        output = super().compute_loss(inputs, normalizer, ctx)
        inputs.batch.rewards.add_(0.5)
        return output


class Dicing(Good):
    def per_token(self, inputs: LossInput) -> Tensor:
        torch.rand(1)
        return super().per_token(inputs)


class HostBound(Good):
    """It makes a mask on the host, wherever its inputs are."""

    def per_token(self, inputs: LossInput) -> Tensor:
        return super().per_token(inputs) * torch.ones(inputs.logprobs.shape)


class Adaptive(Good):
    """Its gain grows with every step. Nothing is wrong with it."""

    gain = 1.0

    def per_token(self, inputs: LossInput) -> Tensor:
        return super().per_token(inputs) * self.gain

    def after_step(self, metrics: Mapping[str, float]) -> None:
        self.gain *= 1.0 + 0.1 * metrics["train/reward"]

    def state_dict(self) -> Any:
        return {"gain": self.gain}

    def load_state_dict(self, state: Any) -> None:
        self.gain = state["gain"]


class Forgetful(Adaptive):
    def load_state_dict(self, state: Any) -> None: ...


class Rounding(Adaptive):
    def state_dict(self) -> Any:
        return {"gain": round(self.gain, 2)}


class Unstored(Adaptive):
    def state_dict(self) -> Any:
        return {"gain": torch.tensor(self.gain)}


class OneWay(Good):
    def state_dict(self) -> Any:
        return {}


class Counting(Good):
    """Changes with the number of batches it has seen, and says nothing of it."""

    seen = 0

    def compute_advantages(self, batch: TrainBatch, evals: PolicyEval, ctx: StepContext) -> AdvantageOutput:
        self.seen += 1
        output = super().compute_advantages(batch, evals, ctx)
        return replace(output, advantages=output.advantages * (1.0 + 0.1 * self.seen))


class Talkative(Good):
    def compute_loss(self, inputs: LossInput, normalizer: LossNormalizer, ctx: StepContext) -> LossOutput:
        output = super().compute_loss(inputs, normalizer, ctx)
        return replace(output, metrics={**output.metrics, "policy/mood": mean(1.0, 1.0)})


class Upwards(Good):
    """The sign is wrong: it makes likely what did not pay."""

    def per_token(self, inputs: LossInput) -> Tensor:
        return -super().per_token(inputs)


def no_needs(config: Any) -> Any:
    return None


def needs(config: Any) -> Needs:
    return Needs()

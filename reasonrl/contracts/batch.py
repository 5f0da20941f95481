"""What the stages exchange on the device. B rows on this rank, T padded length.

Alignment, one rule: every ``[B, T]`` tensor is aligned to ``input_ids``;
``logprobs[b, t] = ln pi(input_ids[b, t] | input_ids[b, <t])`` and ``values[b, t]`` is the value of the state *before*
token t. Right padding. Masks are bool, True = takes part. Column 0 is never in ``response_mask``.
Positions outside a mask may hold anything: no code depends on them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Self

from torch import Tensor

from reasonrl.contracts.metrics import Metric


class _Rows:
    """Row selection shared by the tensor types."""

    __slots__ = ()

    def select(self, rows: Tensor, length: int) -> Self:
        """The given rows ``[b]`` (int64), cut to the first ``length`` columns."""
        picked: dict[str, Any] = {}
        for f in fields(self):  # type: ignore[arg-type]
            value = getattr(self, f.name)
            if isinstance(value, Tensor):
                value = value[rows, :length] if value.ndim == 2 else value[rows]
            elif isinstance(value, _Rows):
                value = value.select(rows, length)
            elif f.name == "component_rewards":
                value = {name: component[rows] for name, component in value.items()}
            picked[f.name] = value
        return type(self)(**picked)


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainBatch(_Rows):
    """The scored rollouts of this rank, padded."""

    input_ids: Tensor
    """``[B, T]`` int64: prompt then completion."""
    attention_mask: Tensor
    """``[B, T]`` bool: prompt and completion."""
    response_mask: Tensor
    """``[B, T]`` bool: tokens that the policy sampled, EOS included. All False for an unscored row."""
    rollout_logprobs: Tensor | None
    """``[B, T]`` float32: the sampler's log-probabilities."""
    rewards: Tensor
    """``[B]`` float32: total reward; 0.0 where ``scored`` is False, and to be ignored there."""
    token_rewards: Tensor | None
    """``[B, T]`` float32: additional reward of single tokens."""
    scored: Tensor
    """``[B]`` bool."""
    truncated: Tensor
    """``[B]`` bool: ended by the token limit. Truncation is terminal with its real reward."""
    group_ids: Tensor
    """``[B]`` int64: rows of one prompt share an id."""
    policy_versions: Tensor
    """``[B]`` int64: the policy's optimizer steps behind the weights that sampled the row."""
    component_rewards: Mapping[str, Tensor] = field(default_factory=dict)
    """``[B]`` float32 by name of the reward, before its weight; 0.0 where ``scored`` is False."""

    @property
    def num_rows(self) -> int:
        """B: completions in this batch."""
        return self.input_ids.shape[0]


@dataclass(frozen=True, kw_only=True, slots=True)
class PolicyEval(_Rows):
    """Gradient-free evaluations of the batch before the first update, each ``[B, T]`` float32 or None."""

    old_logprobs: Tensor | None
    """Trainer log-probabilities at the start of the update. None while a batch that is used only once has not been
    through its forward pass; ``compute_loss`` always sees them filled in."""
    ref_logprobs: Tensor | None
    values: Tensor | None


@dataclass(frozen=True, kw_only=True, slots=True)
class AdvantageOutput(_Rows):
    """``advantages`` and ``returns`` are ``[B, T]`` float32, detached, 0.0 outside ``response_mask``.

    ``contributes`` ``[B]`` bool: False only for rows whose gradient is exactly zero; the trainer may leave those out.
    """

    advantages: Tensor
    returns: Tensor | None = None
    contributes: Tensor | None = None
    metrics: Mapping[str, Metric] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class LossInput:
    """One micro-batch: current model outputs (with gradient) beside the sliced batch. All ``[b, T]``."""

    logprobs: Tensor
    entropy: Tensor | None
    values: Tensor | None
    batch: TrainBatch
    evals: PolicyEval
    advantages: AdvantageOutput


@dataclass(frozen=True, kw_only=True, slots=True)
class LossNormalizer:
    """Counts over one *optimizer* step: all its micro-batches and ranks, scored rows only.

    ``num_sequences`` counts rows with at least one response token; ``extra`` is the algorithm's ``counts``.
    """

    num_response_tokens: float
    num_sequences: float
    extra: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class LossOutput:
    """``loss`` is a scalar tensor: this micro-batch's share."""

    loss: Tensor
    metrics: Mapping[str, Metric] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class UpdateOutput:
    """What the update stage did with one batch."""

    metrics: Mapping[str, float]
    policy_version: int
    num_skipped: int
    num_consecutive_skips: int = 0
    """Optimizer steps left out in a row up to now, those of earlier batches included."""


def _identity(tensor: Tensor) -> Tensor:
    return tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class Reduce:
    """Sums over ranks; the identity on one process."""

    sum: Callable[[Tensor], Tensor] = _identity


@dataclass(frozen=True, kw_only=True, slots=True)
class StepContext:
    """``step`` counts from 1; ``policy_version`` is the number of optimizer steps that have moved the policy."""

    step: int
    total_steps: int
    policy_version: int
    reduce: Reduce = field(default_factory=Reduce)

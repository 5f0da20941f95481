"""Random batches for algorithms, and the outcome on them."""

from __future__ import annotations

from dataclasses import dataclass, fields, is_dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor

from reasonrl.contracts.batch import AdvantageOutput, LossInput, LossNormalizer, PolicyEval, StepContext, TrainBatch
from reasonrl.contracts.metrics import Metric
from reasonrl.contracts.protocols import Algorithm
from reasonrl.contracts.specs import Needs

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

CONTEXT = StepContext(step=3, total_steps=10, policy_version=2)
GROUPS, WIDTH = 3, 9
AnyPart = TypeVar("AnyPart", bound="DataclassInstance")
PartT = TypeVar("PartT", "Case", TrainBatch, PolicyEval)


@dataclass(frozen=True, kw_only=True)
class Case:
    """A batch, the evaluations declared by the algorithm, and the current model's outputs."""

    batch: TrainBatch
    evals: PolicyEval
    logprobs: Tensor
    entropy: Tensor
    values: Tensor | None

    def select(self, rows: Tensor) -> Case:
        """Select rows."""
        width = self.batch.input_ids.shape[1]
        return Case(
            batch=self.batch.select(rows, width),
            evals=self.evals.select(rows, width),
            logprobs=self.logprobs[rows],
            entropy=self.entropy[rows],
            values=None if self.values is None else self.values[rows],
        )

    def fill_outside(self, junk: float) -> Case:
        """Replace the values outside the mask."""
        mask = self.batch.response_mask
        evals = {f: _fill(getattr(self.evals, f), mask, junk) for f in ("old_logprobs", "ref_logprobs", "values")}
        rollout = _fill(self.batch.rollout_logprobs, mask, junk)
        return Case(
            batch=replace(self.batch, rollout_logprobs=rollout),
            evals=PolicyEval(**evals),
            logprobs=torch.where(mask, self.logprobs, junk),
            entropy=torch.where(mask, self.entropy, junk),
            values=_fill(self.values, mask, junk),
        )


def _fill(tensor: Tensor | None, mask: Tensor, junk: float) -> Tensor | None:
    return None if tensor is None else torch.where(mask, tensor, junk)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The outcome of a case. Gradients are of the loss with respect to the model's outputs, ``[B, T]``."""

    advantages: AdvantageOutput
    loss: Tensor
    by_logprobs: Tensor
    by_values: Tensor | None
    metrics: dict[str, Metric]


def random_case(needs: Needs, *, group_size: int, padding: int = 0, seed: int = 0) -> Case:
    """Build three groups of ragged completions with different rewards, one truncated and one unscored."""
    generator = torch.Generator().manual_seed(seed)
    rows = GROUPS * group_size
    lengths = torch.randint(1, WIDTH - 2, (rows,), generator=generator)
    scored = torch.ones(rows, dtype=torch.bool)
    scored[1] = False
    columns = torch.arange(WIDTH)[None, :]
    attention = columns < (2 + lengths)[:, None]
    mask = attention & (columns >= 2) & scored[:, None]

    def noise(scale: float, shift: float) -> Tensor:
        return shift + scale * torch.randn(rows, WIDTH, generator=generator)

    old, rewards = noise(0.3, -1.5), torch.rand(rows, generator=generator) * scored
    logprobs, ref, values = old + noise(0.1, 0.0), old + noise(0.1, 0.0), noise(0.5, 0.3)
    batch = TrainBatch(
        input_ids=torch.randint(0, 50, (rows, WIDTH), generator=generator),
        attention_mask=attention,
        response_mask=mask,
        rollout_logprobs=old + noise(0.01, 0.0) if needs.rollout_logprobs else None,
        rewards=rewards,
        token_rewards=None,
        scored=scored,
        truncated=torch.arange(rows) % 5 == 2,
        group_ids=torch.arange(rows) // group_size,
        policy_versions=torch.full((rows,), 2),
        component_rewards={"one": rewards / 2, "two": rewards / 2},
    )
    evals = PolicyEval(
        old_logprobs=old, ref_logprobs=ref if needs.reference else None, values=values if needs.critic else None
    )
    entropy, current = noise(0.2, 1.0), values + noise(0.1, 0.0)
    case = Case(
        batch=_pad(batch, padding),
        evals=_pad(evals, padding),
        logprobs=logprobs,
        entropy=entropy,
        values=current if needs.critic else None,
    )
    return _pad(case, padding)


def _pad(part: PartT, columns: int) -> PartT:
    """Pad the columns of every ``[B, T]`` tensor on the right."""
    values = {field.name: getattr(part, field.name) for field in fields(part)}
    for name, value in values.items():
        if isinstance(value, Tensor) and value.ndim == 2:
            values[name] = torch.nn.functional.pad(value, (0, columns))
    return type(part)(**values)


def moved(part: AnyPart, device: torch.device) -> AnyPart:
    """Copy a case, and the batch and evaluations in it, to ``device``."""

    def move(value: Any) -> Any:
        if isinstance(value, Tensor):
            return value.to(device)
        if isinstance(value, dict):
            return {key: move(each) for key, each in value.items()}
        return moved(value, device) if is_dataclass(value) and not isinstance(value, type) else value

    return type(part)(**{field.name: move(getattr(part, field.name)) for field in fields(part)})


def advantages_of(algorithm: Algorithm, case: Case, needs: Needs) -> AdvantageOutput:
    """Call ``compute_advantages`` as the trainer does, with only the declared evaluations."""
    old = case.evals.old_logprobs if needs.old_for_advantages else None
    return algorithm.compute_advantages(case.batch, replace(case.evals, old_logprobs=old), CONTEXT)


def normalizer_of(algorithm: Algorithm, batch: TrainBatch, advantages: AdvantageOutput) -> LossNormalizer:
    """Return the counts of one optimizer step over the whole batch."""
    counts = getattr(algorithm, "counts", None)
    return LossNormalizer(
        num_response_tokens=float(batch.response_mask.sum()),
        num_sequences=float(batch.response_mask.any(dim=1).sum()),
        extra=dict(counts(batch, advantages)) if counts is not None else {},
    )


def run(
    algorithm: Algorithm,
    case: Case,
    needs: Needs,
    *,
    advantages: AdvantageOutput | None = None,
    normalizer: LossNormalizer | None = None,
) -> Outcome:
    """Compute advantages, loss and gradients of a case; ``normalizer`` makes it a micro-batch of a larger step."""
    given = advantages if advantages is not None else advantages_of(algorithm, case, needs)
    logprobs = case.logprobs.clone().requires_grad_()
    entropy = case.entropy.clone().requires_grad_(needs.entropy == "grad")
    values = None if case.values is None else case.values.clone().requires_grad_()
    inputs = LossInput(
        logprobs=logprobs, entropy=entropy, values=values, batch=case.batch, evals=case.evals, advantages=given
    )
    output = algorithm.compute_loss(inputs, normalizer or normalizer_of(algorithm, case.batch, given), CONTEXT)
    leaves = [leaf for leaf in (logprobs, values) if leaf is not None]
    has_graph = isinstance(output.loss, Tensor) and output.loss.requires_grad
    gradients = torch.autograd.grad(output.loss.sum(), leaves, allow_unused=True) if has_graph else [None] * len(leaves)
    filled = [
        torch.zeros_like(leaf) if gradient is None else gradient
        for leaf, gradient in zip(leaves, gradients, strict=True)
    ]
    return Outcome(
        advantages=given,
        loss=output.loss,
        by_logprobs=filled[0],
        by_values=filled[1] if values is not None else None,
        metrics={**given.metrics, **output.metrics},
    )

"""Random batches as plain lists, and the same batches as the tensors an algorithm receives.

The lists go to the oracles. The tensors can be padded, shuffled, split and filled with junk outside the mask;
what comes back is put into the lists' order again, so that any two ways of running can be compared.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from reasonrl.contracts.batch import (
    AdvantageOutput,
    LossInput,
    LossNormalizer,
    PolicyEval,
    StepContext,
    TrainBatch,
)
from reasonrl.contracts.metrics import combine, resolve

PER_TOKEN = (
    "logprobs",
    "old_logprobs",
    "ref_logprobs",
    "values",
    "old_values",
    "entropy",
    "token_rewards",
)
LEAVES = ("logprobs", "values", "entropy")
CONTEXT = StepContext(step=1, total_steps=10, policy_version=0)


@dataclass(frozen=True)
class Layout:
    """How the same rows are laid out and split. ``order`` permutes rows; ``splits`` are micro-batch sizes."""

    dtype: torch.dtype = torch.float64
    order: tuple[int, ...] | None = None
    extra_columns: int = 0
    junk: float = 0.0
    splits: tuple[int, ...] | None = None


@dataclass
class Outcome:
    """In the lists' row order and columns, float64."""

    loss: float
    gradients: dict[str, np.ndarray]
    advantages: np.ndarray
    returns: np.ndarray | None
    contributes: np.ndarray
    metrics: dict[str, float]


def random_rows(
    seed: int, *, groups: int = 2, group_size: int = 3, max_prompt: int = 3, max_response: int = 5
) -> dict[str, Any]:
    """Rows of random lengths; some unscored, some with a gap in the response, rewards with ties.

    The total reward is that of the component ``main`` plus half of ``extra``.
    """
    rng = np.random.default_rng(seed)
    num_rows, columns = groups * group_size, max_prompt + max_response
    scored = [bool(rng.random() > 0.15) for _ in range(num_rows)]
    scored[0] = True
    masks = [_random_mask(rng, max_prompt, max_response) if s else [False] * columns for s in scored]
    old = -rng.exponential(1.0, (num_rows, columns))
    old_values = rng.normal(0, 1, (num_rows, columns))
    table = {
        "old_logprobs": old,
        "logprobs": old + rng.normal(0, 0.3, old.shape),
        "ref_logprobs": old + rng.normal(0, 0.3, old.shape),
        "old_values": old_values,
        "values": old_values + rng.normal(0, 0.5, old.shape),
        "entropy": rng.exponential(1.0, old.shape),
        "token_rewards": rng.normal(0, 0.1, old.shape),
    }
    rewards = [float(rng.choice([0.0, 0.1, 1.0])) if s else 0.0 for s in scored]
    extra = [float(rng.choice([0.0, 0.5])) if s else 0.0 for s in scored]
    return {
        "mask": masks,
        "scored": scored,
        "rewards": [r + 0.5 * e for r, e in zip(rewards, extra, strict=True)],
        "components": [{"main": r, "extra": e} for r, e in zip(rewards, extra, strict=True)],
        "groups": [7 * (i // group_size) for i in range(num_rows)],
        "truncated": [bool(rng.random() < 0.3) for _ in range(num_rows)],
        **{name: values.tolist() for name, values in table.items()},
    }


def _random_mask(rng: np.random.Generator, max_prompt: int, max_response: int) -> list[bool]:
    prompt, response = int(rng.integers(1, max_prompt + 1)), int(rng.integers(1, max_response + 1))
    taken = [True] * response
    if response > 2 and rng.random() < 0.4:
        taken[int(rng.integers(1, response - 1))] = False
    return [False] * prompt + taken + [False] * (max_prompt + max_response - prompt - response)


def run(
    algorithm: Any, rows: dict[str, Any], layout: Layout | None = None, *, context: StepContext = CONTEXT
) -> Outcome:
    """Advantages over the whole batch, then the loss in micro-batches, summed and differentiated."""
    layout = layout or Layout()
    order = list(layout.order or range(len(rows["mask"])))
    batch, evals, leaves = tensors(rows, layout, order)
    output = algorithm.compute_advantages(batch, evals, context)
    loss, metrics = _run_loss(algorithm, batch, evals, leaves, output, layout, context)
    loss.backward()
    columns = len(rows["mask"][0])
    back = np.argsort(order)

    def original(x: Tensor) -> np.ndarray:
        return x.detach().double().numpy()[back][:, :columns]

    assert output.contributes is not None
    return Outcome(
        loss=float(loss.detach()),
        gradients={
            name: original(leaf.grad if leaf.grad is not None else torch.zeros_like(leaf))
            for name, leaf in leaves.items()
        },
        advantages=original(output.advantages),
        returns=None if output.returns is None else original(output.returns),
        contributes=output.contributes.numpy()[back],
        metrics=resolve(metrics),
    )


def _run_loss(
    algorithm: Any,
    batch: TrainBatch,
    evals: PolicyEval,
    leaves: dict[str, Tensor],
    output: AdvantageOutput,
    layout: Layout,
    context: StepContext,
) -> tuple[Tensor, dict[str, Any]]:
    mask = batch.response_mask
    normalizer = LossNormalizer(
        num_response_tokens=float(mask.sum()),
        num_sequences=float(mask.any(dim=1).sum()),
        extra=algorithm.counts(batch, output) if hasattr(algorithm, "counts") else {},
    )
    total, parts, start = torch.zeros((), dtype=layout.dtype), [], 0
    for size in layout.splits or (batch.num_rows,):
        picked = torch.arange(start, start + size)
        start += size
        inputs = loss_input(batch, evals, leaves, output, picked, batch.input_ids.shape[1])
        share = algorithm.compute_loss(inputs, normalizer, context)
        total = total + share.loss
        parts.append(share.metrics)
    return total, {**output.metrics, **combine(parts)}


def loss_input(
    batch: TrainBatch,
    evals: PolicyEval,
    leaves: dict[str, Tensor],
    output: AdvantageOutput,
    picked: Tensor,
    length: int,
) -> LossInput:
    return LossInput(
        **{name: leaf[picked, :length] for name, leaf in leaves.items()},
        batch=batch.select(picked, length),
        evals=evals.select(picked, length),
        advantages=output.select(picked, length),
    )


def tensors(
    rows: dict[str, Any], layout: Layout, order: Sequence[int]
) -> tuple[TrainBatch, PolicyEval, dict[str, Tensor]]:
    """The batch, its evaluations and the leaves that the loss differentiates."""
    mask = _pad(torch.tensor(rows["mask"])[list(order)], layout.extra_columns, False)
    token = {name: _fill(torch.tensor(rows[name], dtype=layout.dtype)[list(order)], mask, layout) for name in PER_TOKEN}
    pick = {name: torch.tensor(rows[name])[list(order)] for name in ("scored", "groups", "truncated")}
    batch = TrainBatch(
        input_ids=torch.zeros(mask.shape, dtype=torch.int64),
        attention_mask=torch.ones_like(mask),
        response_mask=mask,
        rollout_logprobs=token["old_logprobs"],
        rewards=torch.tensor(rows["rewards"], dtype=layout.dtype)[list(order)],
        token_rewards=token["token_rewards"],
        scored=pick["scored"],
        truncated=pick["truncated"],
        group_ids=pick["groups"],
        policy_versions=torch.zeros(len(order), dtype=torch.int64),
        component_rewards={
            name: torch.tensor([rows["components"][i][name] for i in order], dtype=layout.dtype)
            for name in rows.get("components", [{}])[0]
        },
    )
    evals = PolicyEval(
        old_logprobs=token["old_logprobs"], ref_logprobs=token["ref_logprobs"], values=token["old_values"]
    )
    return batch, evals, {name: token[name].clone().requires_grad_() for name in LEAVES}


def _pad(x: Tensor, columns: int, value: float) -> Tensor:
    return torch.nn.functional.pad(x, (0, columns), value=value)


def _fill(x: Tensor, mask: Tensor, layout: Layout) -> Tensor:
    return _pad(x, layout.extra_columns, layout.junk).masked_fill(~mask, layout.junk)


def on_first_pass(rows: dict[str, Any]) -> dict[str, Any]:
    """The same rows before any update: the policy is still the old one."""
    return {**rows, "logprobs": rows["old_logprobs"], "values": rows["old_values"]}


def assert_same(a: Outcome, b: Outcome, *, rtol: float, atol: float) -> None:
    """Loss, advantages, gradients and metrics agree."""
    close = {"rtol": rtol, "atol": atol}
    np.testing.assert_allclose(a.loss, b.loss, **close)
    np.testing.assert_allclose(a.advantages, b.advantages, **close)
    assert (a.returns is None) == (b.returns is None)
    if a.returns is not None and b.returns is not None:
        np.testing.assert_allclose(a.returns, b.returns, **close)
    np.testing.assert_array_equal(a.contributes, b.contributes)
    for name in LEAVES:
        np.testing.assert_allclose(a.gradients[name], b.gradients[name], **close, err_msg=name)
    assert a.metrics.keys() == b.metrics.keys()
    for key in a.metrics:
        np.testing.assert_allclose(a.metrics[key], b.metrics[key], **close, err_msg=key)

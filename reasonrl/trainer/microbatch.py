"""Micro-batches: choose the rows of each forward pass, and accumulate their gradients."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Self

from accelerate import Accelerator
from torch import Tensor, nn

from reasonrl.contracts.batch import TrainBatch
from reasonrl.contracts.metrics import Metric, mean
from reasonrl.model.mode import in_mode
from reasonrl.model.policy import PolicyModule
from reasonrl.trainer.ranks import Ranks
from reasonrl.trainer.work import RowShape, least_work


@dataclass(frozen=True, slots=True)
class Microbatch:
    """The ``position``-th micro-batch of an optimizer step. A dummy's loss must be 0."""

    rows: Sequence[int]
    position: int
    is_dummy: bool


def accumulate_gradients(
    policy: nn.Module,
    plan: Sequence[Sequence[int]],
    compute_loss: Callable[[Microbatch], Tensor],
    *,
    spare_row: int,
    accelerator: Accelerator,
    ranks: Ranks,
) -> float:
    """Forward and backward for every micro-batch of ``plan``; returns this rank's sum of losses.

    Ranks enter the module equally often: one that runs out of micro-batches repeats ``spare_row`` as a dummy.
    """
    num_rounds = ranks.max(max(1, len(plan)))
    total = 0.0
    for position in range(num_rounds):
        is_dummy = position >= len(plan)
        part = Microbatch([spare_row] if is_dummy else plan[position], position, is_dummy)
        is_synced = position == num_rounds - 1 or ranks.size == 1
        with in_mode(policy, training=True), nullcontext() if is_synced else accelerator.no_sync(policy):
            loss = compute_loss(part)
            # DDP averages gradients over ranks; the loss is a share of the global sum.
            accelerator.backward(loss * ranks.size)
        total += float(loss.detach())
    return total


def plan_microbatches(lengths: Sequence[int], rows: Sequence[int], max_tokens: int) -> list[list[int]]:
    """Split ``rows`` into micro-batches of at most ``max_tokens`` *padded* tokens, longest rows first.

    Sorting by length keeps padding small; a single row over the budget gets a micro-batch of its own.

    Args:
        lengths: tokens of every row of the batch.
        rows: the rows to place.
        max_tokens: budget for ``rows in the micro-batch * longest of them``.

    Example:
        Lengths [5, 2, 4], rows [0, 1, 2], max_tokens 10 -> [[0, 2], [1]].
    """
    ordered = sorted(rows, key=lambda row: (-lengths[row], row))
    plan: list[list[int]] = []
    for row in ordered:
        # The first row of a micro-batch is its longest, so it alone sets the padded width.
        if plan and (len(plan[-1]) + 1) * lengths[plan[-1][0]] <= max_tokens:
            plan[-1].append(row)
        else:
            plan.append([row])
    return plan


def plan_packed(lengths: Sequence[int], groups: Sequence[int], rows: Sequence[int], max_tokens: int) -> list[list[int]]:
    """Split ``rows`` for packing, which needs no padding: at most ``max_tokens`` in all rows of a micro-batch.

    A prompt counts in each of its rows, so that memory does not depend on how many of them are in one micro-batch.
    Rows of one group stay together where they fit; groups are ordered by their longest row.

    Example:
        Lengths [5, 2, 4], groups [0, 1, 0], rows [0, 1, 2], max_tokens 9 -> [[0, 2], [1]].
    """
    members: dict[int, list[int]] = {}
    for row in sorted(rows, key=lambda row: (-lengths[row], row)):
        members.setdefault(groups[row], []).append(row)
    plan: list[list[int]] = []
    room = 0
    for group in members.values():
        if sum(lengths[row] for row in group) > room:
            room = 0
        for row in group:
            if lengths[row] > room:
                plan.append([])
                room = max_tokens
            plan[-1].append(row)
            room -= lengths[row]
    return plan


def count_padded_tokens(lengths: Sequence[int], plan: Sequence[Sequence[int]]) -> int:
    """Tokens that the model computes for ``plan``, padding included."""
    return sum(len(rows) * max(lengths[row] for row in rows) for rows in plan if rows)


@dataclass(frozen=True, slots=True)
class Cutting:
    """How the rows of a batch are cut into micro-batches: packed if all of them may be."""

    shapes: Sequence[RowShape]
    packs: bool

    @classmethod
    def of(cls, shapes: Sequence[RowShape], policy: nn.Module) -> Self:
        """For the policy, also if accelerate has wrapped it."""
        module = next(m for m in policy.modules() if isinstance(m, PolicyModule))
        return cls(shapes, max(shape.total for shape in shapes) <= module.packs_up_to)

    @classmethod
    def of_batch(cls, batch: TrainBatch, policy: nn.Module) -> Self:
        """A row's prompt ends where its first sampled token is."""
        columns = zip(
            batch.group_ids.tolist(),
            batch.response_mask.int().argmax(dim=1).tolist(),
            batch.attention_mask.sum(dim=1).tolist(),
            batch.response_mask.sum(dim=1).tolist(),
            strict=True,
        )
        return cls.of([RowShape(*row) for row in columns], policy)

    @property
    def lengths(self) -> list[int]:
        """Tokens of every row."""
        return [shape.total for shape in self.shapes]

    def plan(self, rows: Sequence[int], max_tokens: int) -> list[list[int]]:
        """Micro-batches of ``rows``."""
        if not self.packs:
            return plan_microbatches(self.lengths, rows, max_tokens)
        return plan_packed(self.lengths, [shape.group for shape in self.shapes], rows, max_tokens)

    def count(self, plan: Sequence[Sequence[int]]) -> tuple[int, int]:
        """Tokens in the rows of ``plan``, and tokens that the model computes for them."""
        lengths = self.lengths
        real = sum(lengths[row] for rows in plan for row in rows)
        if not self.packs:
            return real, count_padded_tokens(lengths, plan)
        parts = [[self.shapes[row] for row in rows] for rows in plan]
        return real, int(sum(least_work(part).tokens for part in parts))


def work_metrics(real: float, computed: float) -> dict[str, Metric]:
    """Padding, and what packing saves, of the tokens in rows and those that are computed for them."""
    return {
        "batch/padding_frac": mean(max(computed - real, 0.0), computed),
        "batch/shared_frac": mean(max(real - computed, 0.0), real),
    }


def list_local_prompts(prompts_per_step: int, minibatches: int, world_size: int, rank: int) -> list[int]:
    """The prompts of this rank, minibatch by minibatch.

    Every minibatch is cut evenly over the ranks, so that minibatch m holds the same prompts however many
    processes there are.

    Example:
        8 prompts, 2 minibatches, 2 ranks -> rank 0 has [0, 1, 4, 5], rank 1 has [2, 3, 6, 7].
    """
    per_minibatch = prompts_per_step // minibatches
    share = per_minibatch // world_size
    return [m * per_minibatch + rank * share + i for m in range(minibatches) for i in range(share)]

"""Which rows go through the model together: sorted by length, under a token budget."""

from collections.abc import Sequence


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


def padded_tokens(lengths: Sequence[int], plan: Sequence[Sequence[int]]) -> int:
    """Tokens that the model computes for ``plan``, padding included."""
    return sum(len(rows) * max(lengths[row] for row in rows) for rows in plan if rows)


def local_prompt_indices(prompts_per_step: int, minibatches: int, world_size: int, rank: int) -> list[int]:
    """The prompts of this rank, minibatch by minibatch.

    Every minibatch is cut evenly over the ranks, so that minibatch m holds the same prompts however many
    processes there are.

    Example:
        8 prompts, 2 minibatches, 2 ranks -> rank 0 has [0, 1, 4, 5], rank 1 has [2, 3, 6, 7].
    """
    per_minibatch = prompts_per_step // minibatches
    share = per_minibatch // world_size
    return [m * per_minibatch + rank * share + i for m in range(minibatches) for i in range(share)]

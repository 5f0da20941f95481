"""Collate scored groups into padded tensors; the only place that pads."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from reasonrl.contracts.batch import TrainBatch
from reasonrl.contracts.data import Completion, FinishReason, RewardOutput, ScoredGroup


def pad_rows(rows: Sequence[Sequence[float]], fill: float, dtype: type, width: int) -> np.ndarray:
    """Right-pad ragged rows to ``[len(rows), width]``."""
    out: np.ndarray = np.full((len(rows), width), fill, dtype=dtype)
    with np.errstate(over="ignore"):  # values beyond float32 become infinite, which the update counts and skips
        for i, row in enumerate(rows):
            out[i, : len(row)] = row
    return out


def collate(groups: Sequence[ScoredGroup], *, pad_id: int, device: torch.device) -> TrainBatch:
    """Collate groups into a batch with one row per completion, group after group.

    An unscored completion keeps its row with an all-False ``response_mask``, so it contributes nothing; so do the
    tokens of a conversation that the policy did not sample.
    ``rollout_logprobs`` is None if any scored completion lacks them.
    """
    rows = [
        (index, group.group.request.prompt_ids, completion, reward)
        for index, group in enumerate(groups)
        for completion, reward in zip(group.group.completions, group.rewards, strict=True)
    ]
    width = max((len(prompt) + len(c.token_ids) for _, prompt, c, _ in rows), default=1)
    ids = pad_rows([[*prompt, *c.token_ids] for _, prompt, c, _ in rows], pad_id, np.int64, width)
    lengths = np.array([len(prompt) + len(c.token_ids) for _, prompt, c, _ in rows])
    starts = np.array([len(prompt) for _, prompt, _, _ in rows])
    scored = np.array([reward.total is not None for *_, reward in rows])
    columns = np.arange(width)[None, :]
    attention = columns < lengths[:, None]
    response = attention & (columns >= starts[:, None]) & scored[:, None]
    for row, (_, prompt, completion, _) in enumerate(rows):
        if completion.sampled_mask is not None:
            response[row, len(prompt) : len(prompt) + len(completion.token_ids)] &= completion.sampled_mask

    def on_device(array: np.ndarray) -> Tensor:
        return torch.from_numpy(array).to(device)

    return TrainBatch(
        input_ids=on_device(ids),
        attention_mask=on_device(attention),
        response_mask=on_device(response),
        rollout_logprobs=_rollout_logprobs([(p, c, r) for _, p, c, r in rows], width, device),
        rewards=on_device(pad_rows([[r.total or 0.0] for *_, r in rows], 0.0, np.float32, 1)[:, 0]),
        token_rewards=_token_rewards([(p, c, r) for _, p, c, r in rows], width, device),
        scored=on_device(scored),
        truncated=on_device(np.array([c.finish_reason == FinishReason.LENGTH for _, _, c, _ in rows])),
        group_ids=on_device(np.array([index for index, *_ in rows], dtype=np.int64)),
        policy_versions=on_device(np.array([c.policy_version for _, _, c, _ in rows], dtype=np.int64)),
        component_rewards={
            name: on_device(pad_rows([[r.components.get(name) or 0.0] for *_, r in rows], 0.0, np.float32, 1)[:, 0])
            for name in sorted({name for *_, r in rows for name in r.components})
        },
    )


def _per_token(rows: Sequence[tuple[tuple[int, ...], Sequence[float]]], width: int, device: torch.device) -> Tensor:
    aligned = [[0.0] * len(prompt) + list(values) for prompt, values in rows]
    return torch.from_numpy(pad_rows(aligned, 0.0, np.float32, width)).to(device)


def _rollout_logprobs(
    rows: Sequence[tuple[tuple[int, ...], Completion, RewardOutput]], width: int, device: torch.device
) -> Tensor | None:
    # An aborted completion often has none; it contributes nothing, so the others keep theirs.
    if any(c.logprobs is None and reward.total is not None for _, c, reward in rows):
        return None
    return _per_token([(prompt, c.logprobs or ()) for prompt, c, _ in rows], width, device)


def _token_rewards(
    rows: Sequence[tuple[tuple[int, ...], Completion, RewardOutput]], width: int, device: torch.device
) -> Tensor | None:
    if not any(reward.token_values for *_, reward in rows):
        return None
    return _per_token([(prompt, reward.token_values) for prompt, _, reward in rows], width, device)

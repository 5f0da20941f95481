"""Log-probability gap, advantage and entropy of each token, for the transcripts of a step's first completions."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from reasonrl.contracts.batch import AdvantageOutput, PolicyEval, TrainBatch
from reasonrl.contracts.data import Completion, ScoredGroup

MAX_TOKENS = 2048
"""Of a completion; later tokens have no figures."""
MAX_UNFINISHED = 64
"""Tokens in a row that end inside a character; only noise has more."""
REPLACEMENT = "\ufffd"

Figures = Mapping[str, Any]
"""JSON: ``lengths`` of the tokens in characters, and figures by name: one per token, one for all, or None."""


class TokenFigures:
    """Keeps what an update computes anyway. It runs no forward pass and draws no random number.

    Args:
        limit: completions per step; 0 = none.
    """

    def __init__(self, tokenizer: Any, limit: int) -> None:
        self._limit = limit
        self._boundaries = Boundaries(tokenizer)
        self._seen: dict[int, tuple[Tensor, Tensor | None]] = {}

    def see(self, rows: Sequence[int], old_logprobs: Tensor, entropy: Tensor | None) -> None:
        """Keep the first of a batch's rows: ``old_logprobs`` and ``entropy`` ``[b, T]`` of the micro-batch ``rows``."""
        for place, row in enumerate(rows):
            if row < self._limit:
                kept = None if entropy is None else entropy[place].detach().clone()
                self._seen[row] = (old_logprobs[place].detach().clone(), kept)

    def take(
        self,
        groups: Sequence[ScoredGroup],
        batch: TrainBatch,
        evals: PolicyEval,
        advantages: AdvantageOutput,
        policy_version: int,
    ) -> list[Figures | None]:
        """Return the figures of the batch's first completions and forget them; None for a completion without any.

        Args:
            groups: what the batch was made of.
            policy_version: of the policy before the update.
        """
        seen, self._seen = self._seen, {}
        rows = [
            (group.group.request.prompt_ids, completion, reward.total)
            for group in groups[: self._limit]
            for completion, reward in zip(group.group.completions, group.rewards, strict=True)
        ][: self._limit]
        lengths: list[list[int] | None] = []
        columns: list[_Columns] = []
        for row, (prompt, completion, total) in enumerate(rows):
            lengths.append(None if total is None else self._boundaries.lengths(prompt, completion))
            at = slice(len(prompt), len(prompt) + len(lengths[-1] or ()))
            old, entropy = seen.get(row, (None, None))
            if old is None and evals.old_logprobs is not None:
                old = evals.old_logprobs[row]
            # A completion of an earlier policy has a gap that does not come from the sampler.
            is_fresh = completion.policy_version == policy_version
            sampled = batch.rollout_logprobs[row] if batch.rollout_logprobs is not None and is_fresh else None
            gap = None if old is None or sampled is None else old[at] - sampled[at]
            columns.append((gap, advantages.advantages[row, at], None if entropy is None else entropy[at]))
        found: list[Figures | None] = []
        for of_tokens, values, (_, completion, _) in zip(lengths, _to_host(columns), rows, strict=True):
            gaps, ours, entropies = (_sampled(column, completion.sampled_mask) for column in values)
            figures = {"logprob_gap": gaps, "advantage": _alike(ours or []), "entropy": entropies}
            found.append(None if of_tokens is None else {"lengths": of_tokens, **figures})
        return found


_Columns = tuple[Tensor | None, Tensor, Tensor | None]
"""Log-probability gap, advantage and entropy of a completion's tokens, on the device."""


def _to_host(rows: Sequence[_Columns]) -> list[list[list[float] | None]]:
    """Round the values of all rows; in one copy, so that the host waits for the GPU once a step."""
    present = [column for row in rows for column in row if column is not None]
    # Adding 0.0 turns -0.0 into 0.0.
    values = iter([round(value, 4) + 0.0 for value in torch.cat(present).tolist()] if present else [])
    return [[None if column is None else list(islice(values, len(column))) for column in row] for row in rows]


def _sampled(column: list[float] | None, mask: Sequence[bool] | None) -> list[float | None] | None:
    """Take out the tokens that the policy did not sample."""
    if column is None or mask is None:
        return column  # type: ignore[return-value]
    return [value if ours else None for value, ours in zip(column, mask, strict=False)]


class Boundaries:
    """Finds the tokens of a completion in its text."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        # The frequent tokens; a larger one keeps growing for thousands of steps.
        self._decode = lru_cache(maxsize=1 << 12)(self._decode_plainly)

    def lengths(self, prompt: Sequence[int], completion: Completion) -> list[int] | None:
        """Return the characters of the first ``MAX_TOKENS`` tokens; None if the tokens do not spell the text.

        A character of several tokens counts for the first of them. Tokens that add no text, such as the final EOS,
        have 0.
        """
        text, at, before = completion.text, 0, ""
        found: list[int] = []
        pending: tuple[int, ...] = ()
        last: tuple[int, ...] = ()
        for token in completion.token_ids[:MAX_TOKENS]:
            if at >= len(text) and not pending:
                found.append(0)
                continue
            pending = (*pending, token)
            piece = self._piece(last, pending)
            rest = text[at : at + len(piece)]
            is_unfinished = piece.endswith(REPLACEMENT)
            if len(pending) > MAX_UNFINISHED or not (is_unfinished or piece.startswith(rest)):
                return None
            found.append(max(0, len(rest) - len(before)))
            before = piece
            if not is_unfinished:
                at, before, pending, last = at + len(piece), "", (), tuple(prompt[-1:])
        is_spelled = len(completion.token_ids) > MAX_TOKENS or text[at:] == before or (at >= len(text) and not pending)
        return found if is_spelled else None

    def _piece(self, before: tuple[int, ...], tokens: tuple[int, ...]) -> str:
        """Decode ``tokens`` as they read after another token: some tokenizers drop the first space of a text."""
        return self._decode(before + tokens)[len(self._decode(before)) :] if before else self._decode(tokens)

    def _decode_plainly(self, tokens: tuple[int, ...]) -> str:
        text: str = self._tokenizer.decode(list(tokens), skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return text


def _alike(values: list[float | None]) -> float | list[float | None] | None:
    return values[0] if values and values.count(values[0]) == len(values) else values

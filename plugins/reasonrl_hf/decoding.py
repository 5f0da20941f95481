"""Prefill once, expand to the group, decode together, let finished rows go."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from reasonrl import FinishReason, RolloutRequest, SamplingParams
from reasonrl.errors import RolloutError
from reasonrl.functional.precision import widest_float
from reasonrl.functional.randomness import row_uniforms
from reasonrl_hf.cached import CachedModel
from reasonrl_hf.sampling import greedy_tokens, sample_tokens, truncate
from reasonrl_hf.stopping import StopStrings


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One completion to sample: number ``sample`` of a request."""

    request: RolloutRequest
    sample: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Sampled:
    """What a row became."""

    token_ids: list[int]
    logprobs: list[float]
    finish_reason: FinishReason


@dataclass(frozen=True, kw_only=True, slots=True)
class DecodeSettings:
    """What is the same for all rows of a batch. Their token limits are those of their requests."""

    sampling: SamplingParams
    eos_ids: tuple[int, ...]
    pad_id: int
    stop: StopStrings | None
    compact_fraction: float


_REASONS = (FinishReason.LENGTH, FinishReason.EOS, FinishReason.STOP_STRING)
_LENGTH, _EOS, _STOP = 0, 1, 2


class BatchDecoder:
    """Decodes one batch of rows.

    ``rows`` below are places in the batch, R of them; A are still in the running batch.
    """

    def __init__(self, model: CachedModel, rows: Sequence[Row], settings: DecodeSettings) -> None:
        self._model = model
        self._rows = rows
        self._settings = settings
        self._device = model.device
        limits = [row.request.sampling.max_completion_tokens for row in rows]
        self._limit = max(limits)
        shape = (len(rows), self._limit)
        self._tokens = torch.zeros(shape, dtype=torch.int64, device=self._device)
        self._logprobs = torch.zeros(shape, dtype=torch.float32, device=self._device)
        self._lengths = torch.tensor(limits, device=self._device)
        self._limits = None if min(limits) == self._limit else self._lengths.clone()
        self._reasons = torch.zeros(len(rows), dtype=torch.int64, device=self._device)
        self._eos = torch.tensor(settings.eos_ids, device=self._device)
        self._uniforms = None if settings.sampling.is_greedy else self._draw_uniforms()

    @torch.no_grad()
    def run(self, on_finished: Callable[[int], None] = lambda finished: None) -> list[Sampled]:
        """Sample all rows to their ends, in order; ``on_finished`` is told how many have ended.

        Raises:
            RolloutError: if the model gives non-finite logits.
        """
        logits = self._prefill()
        for step in range(self._limit):
            newest = self._choose(logits, step)
            self._mark_finished(newest, step)
            running = int((~self._done).sum())
            on_finished(len(self._rows) - running)
            if running == 0 or step + 1 == self._limit:
                break
            newest = self._compact(newest, running)
            logits = self._decode_one(newest, step)
        return self._collect()

    def _prefill(self) -> Tensor:
        """Run every distinct prompt once, left-padded; expand cache and logits to the rows: ``[R, V]``."""
        prompts = list(dict.fromkeys(row.request.prompt_ids for row in self._rows))
        place = {prompt: i for i, prompt in enumerate(prompts)}
        expand = torch.tensor([place[row.request.prompt_ids] for row in self._rows], device=self._device)
        width = max(len(prompt) for prompt in prompts)
        pad = self._settings.pad_id
        ids = torch.tensor([[pad] * (width - len(p)) + list(p) for p in prompts], device=self._device)
        lengths = torch.tensor([len(p) for p in prompts], device=self._device)
        columns = torch.arange(width + self._limit, device=self._device)
        mask = (columns >= (width - lengths)[:, None]).long()
        positions = (mask[:, :width].cumsum(-1) - 1).clamp_(min=0)
        # Without padding there is nothing to mask; attention is faster without one.
        self._mask = mask[expand] if int(lengths.min()) < width else None
        shown = mask[:, :width] if self._mask is not None else None
        logits, self._cache = self._model.prefill(ids, shown, positions)
        self._cache.reorder_cache(expand)
        self._width = width
        self._prompt_lengths = lengths[expand]
        self._active = torch.arange(len(self._rows), device=self._device)
        self._done = torch.zeros(len(self._rows), dtype=torch.bool, device=self._device)
        return logits[expand]

    def _choose(self, logits: Tensor, step: int) -> Tensor:
        sampling = self._settings.sampling
        if self._uniforms is None:
            tokens, logprobs = greedy_tokens(logits)
        else:
            if sampling.is_truncated:
                logits = truncate(logits, sampling)
            uniforms = self._uniforms[self._active, step]
            tokens, logprobs = sample_tokens(logits, uniforms, sampling.temperature)
        # Finished rows that still run write behind their ends, which is ignored.
        self._tokens[self._active, step] = tokens
        self._logprobs[self._active, step] = logprobs
        return tokens

    def _mark_finished(self, newest: Tensor, step: int) -> None:
        self._finish(torch.isin(newest, self._eos) & ~self._done, step, _EOS)
        if self._settings.stop is not None:
            self._finish(self._hit_stop(self._settings.stop, newest, step), step, _STOP)
        if self._limits is not None:
            self._finish((self._limits[self._active] == step + 1) & ~self._done, step, _LENGTH)

    def _hit_stop(self, stop: StopStrings, newest: Tensor, step: int) -> Tensor:
        hit = torch.zeros_like(self._done)
        places = (stop.candidates(newest) & ~self._done).nonzero()[:, 0]
        if not len(places):
            return hit
        first = max(0, step + 1 - stop.window)
        tails = self._tokens[self._active[places], first : step + 1].tolist()
        ends = torch.tensor([stop.ends(tail) for tail in tails], dtype=torch.bool, device=self._device)
        hit[places] = ends
        return hit

    def _finish(self, ended: Tensor, step: int, reason: int) -> None:
        rows = self._active  # all of them: to pick those that have ended, the host would wait for a GPU
        self._lengths[rows] = torch.where(ended, step + 1, self._lengths[rows])
        self._reasons[rows] = torch.where(ended, reason, self._reasons[rows])
        self._done |= ended

    def _compact(self, newest: Tensor, running: int) -> Tensor:
        """Take finished rows out of the running batch once there are enough of them to pay for the copy."""
        finished = len(self._done) - running
        if finished < self._settings.compact_fraction * len(self._done):
            return newest
        keep = (~self._done).nonzero()[:, 0]
        self._cache.reorder_cache(keep)
        self._mask = None if self._mask is None else self._mask[keep]
        self._active, self._prompt_lengths = self._active[keep], self._prompt_lengths[keep]
        self._done = torch.zeros_like(keep, dtype=torch.bool)
        return newest[keep]

    def _decode_one(self, newest: Tensor, step: int) -> Tensor:
        mask = None if self._mask is None else self._mask[:, : self._width + step + 1]
        return self._model.decode(self._cache, newest[:, None], mask, (self._prompt_lengths + step)[:, None])

    def _draw_uniforms(self) -> Tensor:
        drawn = np.stack([row_uniforms(row.request.seed, row.sample, self._limit) for row in self._rows])
        dtype = np.float64 if widest_float(self._device) == torch.float64 else np.float32
        return torch.from_numpy(drawn.astype(dtype)).to(self._device)

    def _collect(self) -> list[Sampled]:
        out = []
        per_row = zip(
            self._tokens.tolist(),
            self._logprobs.tolist(),
            self._lengths.tolist(),
            self._reasons.tolist(),
            strict=True,
        )
        for tokens, logprobs, length, reason in per_row:
            if not all(value <= 0.0 for value in logprobs[:length]):
                raise RolloutError("hf: the model gives non-finite logits; its weights have diverged")
            out.append(Sampled(token_ids=tokens[:length], logprobs=logprobs[:length], finish_reason=_REASONS[reason]))
        return out

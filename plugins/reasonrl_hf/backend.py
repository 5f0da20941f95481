"""The rollout backend ``hf``: the trainer's own model samples."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from reasonrl import Completion, FinishReason, RolloutContext, RolloutGroup, RolloutRequest, SamplingParams
from reasonrl.contracts.models import base_model, eos_token_ids
from reasonrl.errors import RolloutError
from reasonrl_hf.cached import CachedModel
from reasonrl_hf.config import HFConfig
from reasonrl_hf.decoding import BatchDecoder, DecodeSettings, Row, Sampled
from reasonrl_hf.stopping import StopStrings, decode


class HFBackend:
    """Samples with ``context.policy.model``, in eval mode and without gradients; shares its weights.

    A completion depends on the weights, the prompt, the request's seed and its own sample number alone:
    not, beyond rounding, on what else is in the batch. The global random generators are never used.

    Raises:
        RolloutError: if the model has no key-value cache.
    """

    def __init__(self, config: HFConfig, context: RolloutContext) -> None:
        self._config = config
        self._policy = context.policy
        self._tokenizer = context.tokenizer
        self._policy_version = 0
        self._on_finished = context.on_finished
        dtype = getattr(torch, context.precision)
        with torch.autocast(context.device.type, dtype, enabled=dtype != torch.float32):
            self._model = CachedModel(
                base_model(context.policy.model), context.on_computed, fused=config.fused_decoding
            )
        self._stop_strings: dict[tuple[str, ...], StopStrings] = {}

    def __enter__(self) -> HFBackend:
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop_strings.clear()

    def sync_weights(self, weights: Iterable[tuple[str, Tensor]], *, policy_version: int) -> None:
        """Record the version. ``weights`` is not read: the policy's module is shared."""
        self._policy_version = policy_version

    def generate(self, requests: Sequence[RolloutRequest]) -> list[RolloutGroup]:
        """Sample every request's group: groups in order of the requests, completions of their samples.

        Raises:
            RolloutError: if a prompt is empty, prompt and limit exceed the model's context, or logits are not finite.
        """
        for request in requests:
            self._check(request)
        rows = [Row(request=request, sample=i) for request in requests for i in range(request.group_size)]
        was_training = self._policy.model.training
        self._policy.model.eval()
        try:
            sampled = self._sample(rows)
        finally:
            self._policy.model.train(was_training)
        completions = iter([self._completion(s) for s in sampled])
        return [
            RolloutGroup(request=request, completions=tuple(next(completions) for _ in range(request.group_size)))
            for request in requests
        ]

    def _check(self, request: RolloutRequest) -> None:
        where = f"hf: problem {request.problem.id!r}"
        prompt, limit = len(request.prompt_ids), request.sampling.max_completion_tokens
        if prompt == 0:
            raise RolloutError(f"{where}: the prompt has no tokens; a model needs at least one")
        context = getattr(self._model.model.config.get_text_config(), "max_position_embeddings", None)
        if context is not None and prompt + limit > context:
            raise RolloutError(
                f"{where}: {prompt} prompt tokens and {limit} completion tokens exceed the model's context "
                f"of {context}; lower sampling.max_prompt_tokens or sampling.max_completion_tokens"
            )

    def _sample(self, rows: list[Row]) -> list[Sampled]:
        """Sample in batches of similar prompt lengths. Returned in the order of ``rows``.

        The rows of a batch have one sampling setting; their limits of tokens may differ, as in conversations.
        """
        out: dict[int, Sampled] = {}
        settings_of = [replace(row.request.sampling, max_completion_tokens=0) for row in rows]
        for sampling in dict.fromkeys(settings_of):
            mine = [i for i, setting in enumerate(settings_of) if setting == sampling]
            mine.sort(key=lambda i: len(rows[i].request.prompt_ids))
            settings = self._settings(sampling)
            for batch in _even_batches(mine, self._config.max_batch_rows):
                decoder = BatchDecoder(self._model, [rows[i] for i in batch], settings)
                sampled = decoder.run(partial(self._tell, len(out)))
                out.update(zip(batch, sampled, strict=True))
                self._tell(len(out), 0)
        return [out[i] for i in range(len(rows))]

    def _tell(self, before: int, finished: int) -> None:
        self._on_finished(before + finished)

    def _settings(self, sampling: SamplingParams) -> DecodeSettings:
        eos = eos_token_ids(self._model.model, self._tokenizer)
        return DecodeSettings(
            sampling=sampling,
            eos_ids=eos,
            pad_id=self._tokenizer.pad_token_id if self._tokenizer.pad_token_id is not None else eos[0],
            stop=self._stopping(sampling.stop) if sampling.stop else None,
            compact_fraction=self._config.compact_fraction,
        )

    def _stopping(self, stop: tuple[str, ...]) -> StopStrings:
        if stop not in self._stop_strings:
            embeddings = self._model.model.get_input_embeddings().weight
            self._stop_strings[stop] = StopStrings(stop, self._tokenizer, embeddings.shape[0], embeddings.device)
        return self._stop_strings[stop]

    def _completion(self, sampled: Sampled) -> Completion:
        ended = sampled.finish_reason is FinishReason.EOS
        visible = sampled.token_ids[:-1] if ended else sampled.token_ids
        return Completion(
            token_ids=tuple(sampled.token_ids),
            logprobs=tuple(sampled.logprobs),
            text=decode(self._tokenizer, visible),
            finish_reason=sampled.finish_reason,
            policy_version=self._policy_version,
        )


def _even_batches(items: list[int], at_most: int) -> list[list[int]]:
    """Cut into as few batches as possible, of nearly one size: a last batch of three rows costs as many steps."""
    if not items:
        return []
    count = -(-len(items) // at_most)
    size = -(-len(items) // count)
    return [items[start : start + size] for start in range(0, len(items), size)]

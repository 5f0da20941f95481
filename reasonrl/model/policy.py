"""``PolicyModule``: the trained module and the only forward pass of training.

DDP and FSDP hook into ``forward`` only, so everything that needs gradients happens here. Logits never leave it: they
are computed for completion tokens only, in chunks if there are many.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from reasonrl.contracts.models import base_model
from reasonrl.errors import RecipeError, ShapeError
from reasonrl.functional.logprobs import EntropyMode, logprobs_and_entropy
from reasonrl.model.critic import Critic
from reasonrl.model.heads import LogitsPath, probe_logits_path
from reasonrl.model.packing import Packed

MAX_LOGITS_PER_CHUNK = 1 << 26
"""Logits alive at once (2^26 float32 = 256 MiB); beyond, the backward pass recomputes the head in chunks."""


def logits_per_chunk(gpu_bytes: int | None) -> int:
    """The same for a device: on a GPU, where each chunk casts the head again, 1/48 of its memory and at most 1 GiB."""
    if gpu_bytes is None:
        return MAX_LOGITS_PER_CHUNK
    return min(1 << 28, max(MAX_LOGITS_PER_CHUNK, gpu_bytes // 48 // 4))


@dataclass(frozen=True, kw_only=True, slots=True)
class ForwardOutput:
    """Outputs aligned to ``input_ids`` (see contracts/batch.py), float32 or wider, 0.0 outside ``response_mask``."""

    logprobs: Tensor
    """``[B, T]``: ln pi of each response token at the given temperature."""
    entropy: Tensor | None
    """``[B, T]`` in nats, of the distribution of each response token."""
    values: Tensor | None
    """``[B, T]``: the critic's value of the state before each response token."""


class PolicyModule(nn.Module):
    """A causal LM and an optional critic behind one forward pass.

    ``model`` is a transformers causal LM of any architecture, possibly with peft adapters; a backend in the
    same process may share it. Architectures that post-process logits (soft caps, scales) are detected here, unless
    ``path`` is known: a probe needs all weights in full precision. ``packs_up_to``: tokens of the longest row that is
    packed (see ``model/packing.py``); 0: all rows are padded.
    """

    def __init__(
        self,
        model: nn.Module,
        critic: Critic | None = None,
        *,
        path: LogitsPath | None = None,
        packs_up_to: int = 0,
    ) -> None:
        super().__init__()
        self.model = model
        self.critic = critic
        self.packs_up_to = packs_up_to
        self.max_logits_per_chunk = MAX_LOGITS_PER_CHUNK
        self.path: LogitsPath = path or probe_logits_path(base_model(model))

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        response_mask: Tensor,
        *,
        temperature: float = 1.0,
        entropy: EntropyMode = "none",
        values: bool = False,
    ) -> ForwardOutput:
        """Compute log-probabilities (and entropy, values) of the tokens in ``response_mask``.

        Args:
            input_ids: ``[B, T]`` int64, right-padded.
            attention_mask: ``[B, T]`` bool. Only its shape is checked: with right padding no real token of a causal
                model attends to padding, and without a mask attention takes its fast path.
            response_mask: ``[B, T]`` bool; column 0 is ignored. A row without any token is allowed.
            temperature: logits are divided by it; > 0.
            entropy: ``metric`` without and ``grad`` with gradient.
            values: Also run the critic.

        Raises:
            ShapeError: If shapes differ.
            RecipeError: If values are requested without a critic.
        """
        _check_shapes(input_ids, attention_mask, response_mask)
        if values and self.critic is None:
            raise RecipeError("values requested from a policy without a critic; set critic.kind in the recipe")
        # The state before token t is the hidden state at t - 1.
        rows, states = response_mask[:, 1:].nonzero(as_tuple=True)
        token_ids = input_ids[rows, states + 1]
        inputs: Mapping[str, Any] = {"input_ids": input_ids}
        at = rows, states
        if len(rows) and input_ids.shape[1] <= self.packs_up_to:
            packed = Packed(input_ids, response_mask)
            inputs, at = packed.inputs, (torch.zeros_like(rows), packed.find(rows, states))
        hidden, project = self.path.states(base_model(self.model), inputs, *at)
        logprobs, token_entropy = self._score(hidden, project, token_ids, temperature, entropy)

        def scatter(flat: Tensor) -> Tensor:
            return flat.new_zeros(input_ids.shape).index_put((rows, states + 1), flat)

        token_values = self._values(inputs, hidden, *at) if values else None
        return ForwardOutput(
            logprobs=scatter(logprobs),
            entropy=None if token_entropy is None else scatter(token_entropy),
            values=None if token_values is None else scatter(token_values),
        )

    def parameter_groups(self) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
        """Return the trainable parameters of (the policy, the critic)."""
        policy = [p for p in self.model.parameters() if p.requires_grad]
        critic = [] if self.critic is None else [p for p in self.critic.parameters() if p.requires_grad]
        return policy, critic

    def _values(self, inputs: Mapping[str, Any], hidden: Tensor, rows: Tensor, states: Tensor) -> Tensor:
        assert self.critic is not None
        if self.critic.decoder is not None:
            output = self.critic.decoder(**inputs, use_cache=False)
            hidden = output.last_hidden_state[rows, states]
        return self.critic(hidden)

    def _score(
        self,
        hidden: Tensor,
        project: Callable[[Tensor, slice], Tensor],
        token_ids: Tensor,
        temperature: float,
        entropy: EntropyMode,
    ) -> tuple[Tensor, Tensor | None]:
        vocabulary = base_model(self.model).config.get_text_config().vocab_size
        size = max(1, self.max_logits_per_chunk // vocabulary)

        def score(hidden_part: Tensor, ids: Tensor, where: slice) -> tuple[Tensor, Tensor | None]:
            logits = project(hidden_part, where)
            return logprobs_and_entropy(logits, ids, temperature=temperature, entropy=entropy)

        total = token_ids.shape[0]
        if total <= size or not self.path.plain_head:
            return score(hidden, token_ids, slice(0, total))
        parts = [
            checkpoint(
                score,
                hidden[start : start + size],
                token_ids[start : start + size],
                slice(start, start + size),
                use_reentrant=False,
                # Nothing random happens inside; leave the global generators alone.
                preserve_rng_state=False,
            )
            for start in range(0, total, size)
        ]
        entropies = [part[1] for part in parts]
        return torch.cat([part[0] for part in parts]), None if entropy == "none" else torch.cat(entropies)


def _check_shapes(input_ids: Tensor, attention_mask: Tensor, response_mask: Tensor) -> None:
    if input_ids.ndim != 2 or not input_ids.shape == attention_mask.shape == response_mask.shape:
        shapes = [list(t.shape) for t in (input_ids, attention_mask, response_mask)]
        raise ShapeError(
            f"PolicyModule: input_ids, attention_mask, response_mask must have one shape [B, T], got {shapes}"
        )

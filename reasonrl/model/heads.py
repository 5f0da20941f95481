"""Compute completion-only logits for any causal LM.

Most architectures end in ``lm_head(hidden)``: the head then runs on the needed positions only. Some scale or cap the
head's output (Gemma 2, Cohere, Granite) or its input; for those the model's own forward pass computes the logits of the
needed columns. A probe decides once: it replaces the head's output by a known pattern and checks that the model returns
that pattern unchanged.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from reasonrl.model.mode import in_mode

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Project = Callable[[Tensor, slice], Tensor]


@dataclass(frozen=True, kw_only=True, slots=True)
class LogitsPath:
    """``plain_head``: logits are ``head(last_hidden_state)``. ``keeps_logits``: forward takes ``logits_to_keep``."""

    plain_head: bool
    keeps_logits: bool

    def states(
        self, model: PreTrainedModel, inputs: Mapping[str, Any], rows: Tensor, states: Tensor
    ) -> tuple[Tensor, Project]:
        """Return hidden states ``[N, D]`` at ``(rows, states)`` and a function from a slice of them to logits.

        ``inputs``: arguments of the model.
        """
        if self.plain_head:
            output = model.base_model(**inputs, use_cache=False)
            head = model.get_output_embeddings()
            return output.last_hidden_state[rows, states], lambda hidden, _: head(hidden)
        return self._through_model(model, inputs, rows, states)

    def _through_model(
        self, model: PreTrainedModel, inputs: Mapping[str, Any], rows: Tensor, states: Tensor
    ) -> tuple[Tensor, Project]:
        options: dict[str, Tensor] = {}
        columns = states
        if self.keeps_logits:
            # At least one column, so that every parameter is in the graph even without completions.
            wanted = torch.unique(states) if states.numel() else states.new_zeros(1)
            options["logits_to_keep"] = wanted
            columns = torch.searchsorted(wanted, states)
        output = model(**inputs, use_cache=False, output_hidden_states=True, **options)
        logits = output.logits[rows, columns]
        return output.hidden_states[-1][rows, states], lambda _, where: logits[where]


@torch.no_grad()
def probe_logits_path(model: PreTrainedModel) -> LogitsPath:
    """Probe which path ``model`` (a transformers causal LM) needs, without changing its mode or weights."""
    keeps_logits = "logits_to_keep" in inspect.signature(model.forward).parameters
    head = model.get_output_embeddings()
    if head is None or model.base_model is model:
        return LogitsPath(plain_head=False, keeps_logits=keeps_logits)
    with in_mode(model, training=False):
        plain = _returns_head_output(model, head)
    return LogitsPath(plain_head=plain, keeps_logits=keeps_logits)


def _returns_head_output(model: PreTrainedModel, head: nn.Module) -> bool:
    seen: list[Tensor] = []

    def replace(_module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        seen.append(args[0])
        # Large values of both signs, which a cap or a scale would change.
        return torch.linspace(-300.0, 300.0, output.numel()).to(output).view_as(output)

    ids = torch.arange(3, device=model.device)[None]
    handle = head.register_forward_hook(replace)
    try:
        logits = model(input_ids=ids, use_cache=False).logits
    finally:
        handle.remove()
    if len(seen) != 1:
        return False
    pattern = torch.linspace(-300.0, 300.0, logits.numel()).to(seen[0]).view_as(logits)
    hidden = model.base_model(input_ids=ids, use_cache=False).last_hidden_state
    return torch.equal(logits.to(pattern), pattern) and torch.equal(hidden, seen[0])

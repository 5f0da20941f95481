"""How completion-only logits are made for any causal LM.

Most architectures end in ``lm_head(hidden)``: then the head runs on the wanted positions alone. Some scale
or cap what the head gives (Gemma 2, Cohere, Granite) or what it gets; for those the model's own forward
pass makes the logits of the wanted columns. Which one a model is, is measured once: the head's output is
replaced by a known pattern, and the model must hand that pattern through untouched.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from reasonrl.model.mode import in_mode

Project = Callable[[Tensor, slice], Tensor]


@dataclass(frozen=True, kw_only=True, slots=True)
class LogitsPath:
    """``plain_head``: logits are the head of the trunk's last hidden state. ``keeps_logits``: forward takes
    columns."""

    plain_head: bool
    keeps_logits: bool

    @property
    def chunkable(self) -> bool:
        """Whether logits can be made a chunk at a time."""
        return self.plain_head

    def states(self, model: Any, input_ids: Tensor, rows: Tensor, states: Tensor) -> tuple[Tensor, Project]:
        """Hidden states ``[N, D]`` at ``(rows, states)`` and a function that makes logits ``[n, V]`` of a
        slice of them."""
        if self.plain_head:
            output = model.base_model(input_ids=input_ids, use_cache=False)
            head = model.get_output_embeddings()
            return output.last_hidden_state[rows, states], lambda hidden, _: head(hidden)
        return self._through_model(model, input_ids, rows, states)

    def _through_model(self, model: Any, input_ids: Tensor, rows: Tensor, states: Tensor) -> tuple[Tensor, Project]:
        options: dict[str, Any] = {}
        columns = states
        if self.keeps_logits:
            # At least one column, so that a batch without completions still reaches every parameter.
            wanted = torch.unique(states) if states.numel() else states.new_zeros(1)
            options["logits_to_keep"] = wanted
            columns = torch.searchsorted(wanted, states)
        output = model(input_ids=input_ids, use_cache=False, output_hidden_states=True, **options)
        logits = output.logits[rows, columns]
        return output.hidden_states[-1][rows, states], lambda _, where: logits[where]


@torch.no_grad()
def probe_logits_path(model: Any) -> LogitsPath:
    """Measure which path ``model`` (a transformers causal LM) needs; leaves its mode and weights as they
    were."""
    keeps_logits = "logits_to_keep" in inspect.signature(model.forward).parameters
    head = model.get_output_embeddings()
    if head is None or model.base_model is model:
        return LogitsPath(plain_head=False, keeps_logits=keeps_logits)
    with in_mode(model, training=False):
        plain = _hands_through(model, head)
    return LogitsPath(plain_head=plain, keeps_logits=keeps_logits)


def _hands_through(model: Any, head: Any) -> bool:
    seen: list[Tensor] = []

    def replace(_module: Any, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        seen.append(args[0])
        # Large and of both signs: a cap or a scale cannot leave it as it is.
        return torch.linspace(-300.0, 300.0, output.numel()).to(output).view_as(output)

    ids = torch.arange(3, device=model.get_input_embeddings().weight.device)[None]
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

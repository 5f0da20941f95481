"""A tiny random policy whose outputs tests can control."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from reasonrl.model.load import load_model
from reasonrl.model.policy import PolicyModule
from reasonrl.recipe.schema import ModelConfig
from reasonrl.testing.models import tiny_model_folder

CPU = torch.device("cpu")
_CONSTANT = 4.0


@dataclass(frozen=True, kw_only=True)
class TinyPolicy:
    """A random two-layer model, as loaded by the trainer, and its folder."""

    policy: PolicyModule
    tokenizer: Any
    path: Path

    @property
    def vocabulary(self) -> int:
        config: Any = self.policy.model.config
        return int(config.vocab_size)


def tiny_policy(folder: Path, *, seed: int = 0, device: torch.device = CPU, **shape: Any) -> TinyPolicy:
    """Write a random model with a byte tokenizer to ``folder``, if none is there, and load it.

    Args:
        shape: options of ``tiny_model_folder``, such as ``hidden=256, heads=4``.
    """
    path = folder if (folder / "config.json").is_file() else tiny_model_folder(folder, seed=seed, **shape)
    config = ModelConfig(path=str(path), dtype="float32")
    loaded = load_model(config, str(path), seed=seed, device=device)
    return TinyPolicy(policy=PolicyModule(loaded.model), tokenizer=loaded.tokenizer, path=path)


@torch.no_grad()
def steer(tiny: TinyPolicy, logits: Mapping[int, float], *, others: float = -30.0, flat: bool = False) -> None:
    """Add a constant to the logit of each token, whatever came before, by changing weights alone.

    The first hidden dimension becomes a constant that no layer touches, and the head's first column holds the wanted
    numbers. Needs a model whose head is not tied to its embedding (``tie=False``). ``flat`` silences the rest of the
    head: the next token's distribution is then exactly that of ``logits``.
    """
    model: Any = tiny.policy.model
    embedding, head = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    if embedding is head:
        raise ValueError("steer needs a model with tie=False")
    hidden = embedding.shape[1]
    if flat:
        embedding.zero_()
        head.zero_()
    embedding[:, 0] = _CONSTANT
    for name, weight in model.named_parameters():
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            weight.zero_() if flat else weight[0].zero_()
        if name.endswith("model.norm.weight"):
            weight[0] = 1.0
    column = torch.full((head.shape[0],), others, dtype=head.dtype, device=head.device)
    for token, value in logits.items():
        column[token] = value
    head[:, 0] = column / math.sqrt(hidden)


def forward_logprobs(tiny: TinyPolicy, prompt: tuple[int, ...], completion: tuple[int, ...]) -> Tensor:
    """Compute ln p of the vocabulary before each completion token, ``[L, V]``, in one plain forward pass."""
    device = next(tiny.policy.parameters()).device
    ids = torch.tensor([prompt + completion], device=device)
    with torch.no_grad():
        return tiny.policy.model(ids).logits[0, len(prompt) - 1 : -1].float().cpu()

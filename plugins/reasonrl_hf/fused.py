"""A decoding step of Llama-like models without module calls, for CPUs, where each operation has a fixed cost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FAMILIES = frozenset({"llama", "mistral", "qwen2", "qwen3"})
_ROPES = frozenset({"default", "linear", "llama3", "yarn"})
"""Rotary embeddings that depend on the position alone. Others change with the length of the sequence."""

_ROOM = 64
"""Columns by which a full cache grows at least."""


class FusedCache:
    """Keys and values ``[A, KV, columns, D]`` of each layer, written in place, with room for further columns.

    ``cache``: what transformers filled with the prompts. ``mask``: ``[A, T]`` of the prompts, 0 where padded.
    """

    def __init__(self, cache: Any, mask: Tensor | None) -> None:
        self.layers: list[tuple[Tensor, Tensor]] = [(layer.keys, layer.values) for layer in cache.layers]
        self.length = self.layers[0][0].shape[2]
        self.bias = None
        if mask is not None:
            zeros = torch.zeros(mask.shape, dtype=self.layers[0][0].dtype)
            self.bias = zeros.masked_fill_(mask == 0, float("-inf"))[:, None, None]

    @property
    def columns(self) -> int:
        """For how many tokens there is room."""
        return self.layers[0][0].shape[2]

    def reorder_cache(self, rows: Tensor) -> None:
        """Keep these rows, in this order."""
        columns = self._with_room()
        for i, pair in enumerate(self.layers):
            self.layers[i] = self._moved(pair, rows, columns)
        self.bias = None if self.bias is None else self.bias[rows]

    def extend(self) -> int:
        """Make room for one more token; its column."""
        if self.length == self.columns:
            columns, every = self._with_room(), slice(None)
            for i, pair in enumerate(self.layers):
                self.layers[i] = self._moved(pair, every, columns)
        self.length += 1
        return self.length - 1

    def _with_room(self) -> int:
        return self.length + max(_ROOM, self.length // 4)

    def _moved(self, pair: tuple[Tensor, Tensor], rows: Tensor | slice, columns: int) -> tuple[Tensor, Tensor]:
        moved = []
        for old in pair:
            kept = old[rows, :, : self.length]
            new = kept.new_empty(*kept.shape[:2], columns, kept.shape[3])
            new[:, :, : self.length] = kept
            moved.append(new)
        return moved[0], moved[1]


@dataclass(frozen=True, slots=True)
class _Block:
    """The parts of a transformer block."""

    attention: Any
    before_attention: Any
    mlp: Any
    before_mlp: Any


class FusedStep:
    """Computes what ``model`` computes for one more token per row, from the model's own parameters.

    Raises:
        ValueError: if the model's passes have to be its own: another family, adapters, hooks, quantized or sharded
            weights, another device, sliding windows.
    """

    def __init__(self, model: Any) -> None:
        if (why := why_not(model)) is not None:
            raise ValueError(why)
        inner, config = model.model, model.config
        self._embedding, self._norm, self._head, self._rotary = (
            inner.embed_tokens,
            inner.norm,
            model.lm_head,
            inner.rotary_emb,
        )
        self._blocks = [_Block(b.self_attn, b.input_layernorm, b.mlp, b.post_attention_layernorm) for b in inner.layers]
        self._heads, self._kv_heads = config.num_attention_heads, config.num_key_value_heads
        self._waves: tuple[Tensor, Tensor] | None = None

    def __call__(self, cache: FusedCache, ids: Tensor, positions: Tensor) -> Tensor:
        """Logits ``[A, V]`` after the tokens ``ids`` ``[A]`` at ``positions`` ``[A]``; ``cache`` grows in place."""
        column = cache.extend()
        waves = self._waves_at(positions, cache.columns)
        x = F.embedding(ids, self._embedding.weight)
        for block, (keys, values) in zip(self._blocks, cache.layers, strict=True):
            mixed = self._attend(block, _norm(block.before_attention, x), waves, keys, values, column, cache.bias)
            x = torch.addmm(x, mixed, block.attention.o_proj.weight.t())
            mlp, h = block.mlp, _norm(block.before_mlp, x)
            gated = mlp.act_fn(_linear(mlp.gate_proj, h)) * _linear(mlp.up_proj, h)
            x = torch.addmm(x, gated, mlp.down_proj.weight.t())
        return _linear(self._head, _norm(self._norm, x))

    def _attend(
        self,
        block: _Block,
        x: Tensor,
        waves: tuple[Tensor, Tensor],
        keys: Tensor,
        values: Tensor,
        column: int,
        bias: Tensor | None,
    ) -> Tensor:
        """Attention's output ``[A, H D]`` before its projection; the keys and values of ``x`` ``[A, E]`` are stored."""
        attention, (rows, kv, columns, width) = block.attention, keys.shape
        query = _linear(attention.q_proj, x).view(rows, self._heads, width)
        key = _linear(attention.k_proj, x).view(rows, kv, width)
        if hasattr(attention, "q_norm"):
            query, key = _norm(attention.q_norm, query), _norm(attention.k_norm, key)
        turned = _rotate(torch.cat((query, key), dim=1), *waves)
        keys[:, :, column] = turned[:, self._heads :]
        values[:, :, column] = _linear(attention.v_proj, x).view(rows, kv, width)
        seen = slice(0, column + 1)
        past = keys.view(rows * kv, columns, width)[:, seen].transpose(1, 2)
        scores = torch.bmm(turned[:, : self._heads].reshape(rows * kv, -1, width), past).mul_(attention.scaling)
        if bias is not None:
            scores.view(rows, kv, -1, column + 1)[..., : bias.shape[-1]].add_(bias)
        mixed = torch.bmm(scores.softmax(-1), values.view(rows * kv, columns, width)[:, seen])
        return mixed.view(rows, self._heads * width)

    def _waves_at(self, positions: Tensor, columns: int) -> tuple[Tensor, Tensor]:
        """Cosines and signed sines ``[A, 1, D]``; a position is never behind its column."""
        if self._waves is None or len(self._waves[0]) < columns:
            every = torch.arange(columns)[None]
            cos, sin = (wave[0] for wave in self._rotary(self._embedding.weight, every))
            half = sin.shape[-1] // 2
            self._waves = cos, torch.cat((-sin[:, :half], sin[:, half:]), dim=-1)
        return self._waves[0][positions][:, None], self._waves[1][positions][:, None]


def why_not(model: Any) -> str | None:
    """Why a model's decoding steps have to be its own; none if they need not be."""
    config = model.config
    if config.model_type not in FAMILIES or not type(model).__module__.startswith("transformers."):
        return "another family"
    if getattr(config, "sliding_window", None) or {*(getattr(config, "layer_types", None) or ())} - {"full_attention"}:
        return "sliding windows"
    if getattr(model.model.rotary_emb, "rope_type", "default") not in _ROPES:
        return "positions that depend on the length"
    blocks = model.model.layers
    outward = [layer for block in blocks for layer in (block.self_attn.o_proj, block.mlp.down_proj)]
    inward = [getattr(b.self_attn, name) for b in blocks for name in ("q_proj", "k_proj", "v_proj")]
    gates = [layer for block in blocks for layer in (block.mlp.gate_proj, block.mlp.up_proj)]
    if any(type(layer) is not nn.Linear for layer in (*outward, *inward, *gates, model.lm_head)):
        return "adapters or quantized layers"
    if any(layer.bias is not None for layer in outward):
        return "biases after attention"
    kinds = {(type(p), p.device.type, p.dtype) for p in model.parameters()}
    if kinds not in ({(nn.Parameter, "cpu", torch.float32)}, {(nn.Parameter, "cpu", torch.float64)}):
        return "weights of another kind"
    everywhere = nn.modules.module
    if (
        everywhere._global_forward_hooks
        or everywhere._global_forward_pre_hooks
        or any(map(_is_changed, model.modules()))
    ):
        return "hooks"
    return None


def _is_changed(module: nn.Module) -> bool:
    hooks = {getattr(hook, "__name__", "") for hook in module._forward_hooks.values()}
    # That of gradient checkpointing lets gradients begin at the embeddings, and changes no value.
    return bool(hooks - {"make_inputs_require_grads"} or module._forward_pre_hooks or "forward" in vars(module))


def _linear(layer: Any, x: Tensor) -> Tensor:
    return F.linear(x, layer.weight, layer.bias)


def _norm(norm: Any, x: Tensor) -> Tensor:
    return F.rms_norm(x, norm.weight.shape, norm.weight, norm.variance_epsilon)


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn pairs (i, i + D/2) of ``x`` ``[A, H, D]``; the sines of the first half are negative."""
    half = x.shape[-1] // 2
    return torch.addcmul(x * cos, torch.cat((x[..., half:], x[..., :half]), dim=-1), sin)

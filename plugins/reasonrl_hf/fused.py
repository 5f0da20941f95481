"""A decoding step of Llama-like models without module calls, for CPUs, where each operation has a fixed cost."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FAMILIES = frozenset({"llama", "mistral", "qwen2", "qwen3"})
_ROPES = frozenset({"default", "linear", "llama3", "yarn"})
"""Rotary embeddings that depend on the position alone. Others change with the length of the sequence."""

_ROOM = 32
"""Columns by which a full cache grows."""


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

    def extend(self) -> None:
        """Make room for one more token, in the last column."""
        if self.length == self.columns:
            columns, every = self._with_room(), slice(None)
            for i, pair in enumerate(self.layers):
                self.layers[i] = self._moved(pair, every, columns)
        self.length += 1

    def _with_room(self) -> int:
        return self.length + _ROOM

    def _moved(self, pair: tuple[Tensor, Tensor], rows: Tensor | slice, columns: int) -> tuple[Tensor, Tensor]:
        moved = []
        for old in pair:
            kept = old[rows, :, : self.length]
            new = kept.new_empty(*kept.shape[:2], columns, kept.shape[3])
            new[:, :, : self.length] = kept
            moved.append(new)
        return moved[0], moved[1]


class _Linear:
    """A linear layer. Views of its parameters, looked up once: a module's attributes are slow."""

    __slots__ = ("bias", "weight")

    def __init__(self, layer: nn.Linear) -> None:
        self.weight, self.bias = layer.weight.t(), layer.bias

    def __call__(self, x: Tensor) -> Tensor:
        return torch.mm(x, self.weight) if self.bias is None else torch.addmm(self.bias, x, self.weight)

    def added_to(self, residual: Tensor, x: Tensor) -> Tensor:
        return torch.addmm(residual, x, self.weight)


class _Norm:
    """An RMS norm."""

    __slots__ = ("eps", "weight")

    def __init__(self, norm: Any) -> None:
        self.weight, self.eps = norm.weight, norm.variance_epsilon

    def __call__(self, x: Tensor) -> Tensor:
        return torch.rms_norm(x, self.weight.shape, self.weight, self.eps)


class _Block:
    """A transformer block. ``H`` heads of queries, ``KV`` of keys and values, ``D`` wide each."""

    def __init__(self, block: Any) -> None:
        attention, mlp = block.self_attn, block.mlp
        self.before_attention, self.before_mlp = _Norm(block.input_layernorm), _Norm(block.post_attention_layernorm)
        self.query, self.key, self.value = map(_Linear, (attention.q_proj, attention.k_proj, attention.v_proj))
        self.norms = [_Norm(getattr(attention, name)) for name in ("q_norm", "k_norm") if hasattr(attention, name)]
        self.scaling, self.outward = attention.scaling, _Linear(attention.o_proj)
        self.gate, self.up, self.down = map(_Linear, (mlp.gate_proj, mlp.up_proj, mlp.down_proj))
        self.activation = mlp.act_fn

    def __call__(self, x: Tensor, waves: tuple[Tensor, Tensor], cache: FusedCache, layer: int) -> Tensor:
        """The block's output ``[A, E]`` for its input ``[A, E]``."""
        x = self.outward.added_to(x, self._attend(self.before_attention(x), waves, cache, layer))
        h = self.before_mlp(x)
        return self.down.added_to(x, self.activation(self.gate(h)) * self.up(h))

    def _attend(self, x: Tensor, waves: tuple[Tensor, Tensor], cache: FusedCache, layer: int) -> Tensor:
        """Attention's output ``[A, H D]`` before its projection; the keys and values of ``x`` ``[A, E]`` are stored."""
        keys, values = cache.layers[layer]
        rows, kv, columns, width = keys.shape
        query, key = self.query(x).view(rows, -1, width), self.key(x).view(rows, kv, width)
        if self.norms:
            query, key = self.norms[0](query), self.norms[1](key)
        query, key = _rotate(torch.cat((query, key), dim=1), *waves).split((query.shape[1], kv), dim=1)
        keys[:, :, cache.length - 1] = key
        values[:, :, cache.length - 1] = self.value(x).view(rows, kv, width)
        past = keys.view(rows * kv, columns, width)[:, : cache.length].transpose(1, 2)
        scores = torch.bmm(query.reshape(rows * kv, -1, width), past).mul_(self.scaling)
        if cache.bias is not None:
            scores.view(rows, kv, -1, cache.length)[..., : cache.bias.shape[-1]].add_(cache.bias)
        mixed = torch.bmm(scores.softmax(-1), values.view(rows * kv, columns, width)[:, : cache.length])
        return mixed.view(rows, -1)


class FusedStep:
    """Computes what ``model`` computes for one more token per row, from the model's own parameters.

    Only for models of which ``why_not`` has nothing to say.
    """

    def __init__(self, model: Any) -> None:
        inner = model.model
        self._embedding, self._rotary = inner.embed_tokens.weight, inner.rotary_emb
        self._blocks = [_Block(block) for block in inner.layers]
        self._norm, self._head = _Norm(inner.norm), _Linear(model.lm_head)
        self._waves: tuple[Tensor, Tensor] | None = None

    @torch.inference_mode()
    def __call__(self, cache: FusedCache, ids: Tensor, positions: Tensor) -> Tensor:
        """Logits ``[A, V]`` after the tokens ``ids`` ``[A]`` at ``positions`` ``[A]``; ``cache`` grows in place."""
        cache.extend()
        waves = self._waves_at(positions, cache.columns)
        x = F.embedding(ids, self._embedding)
        for layer, block in enumerate(self._blocks):
            x = block(x, waves, cache, layer)
        return self._head(self._norm(x))

    def _waves_at(self, positions: Tensor, columns: int) -> tuple[Tensor, Tensor]:
        """Cosines and signed sines ``[A, 1, D]``; a position is never behind its column."""
        if self._waves is None or len(self._waves[0]) < columns:
            every = torch.arange(columns)[None]
            cos, sin = (wave[0] for wave in self._rotary(self._embedding, every))
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
    norms = [getattr(b, name) for b in blocks for name in ("input_layernorm", "post_attention_layernorm")]
    if type(model.model.embed_tokens) is not nn.Embedding or {type(n) for n in norms} != {type(model.model.norm)}:
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


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn pairs (i, i + D/2) of ``x`` ``[A, H, D]``; the sines of the first half are negative."""
    half = x.shape[-1] // 2
    return torch.addcmul(x * cos, torch.cat((x[..., half:], x[..., :half]), dim=-1), sin)

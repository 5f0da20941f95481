"""Run rows through a model without padding, and a prompt that several rows share only once.

The rows become one sequence of *pieces*. A piece without a ``prompt`` starts at position 0: a whole row, or a prompt
that several rows share. The others continue such a prompt: their tokens attend to it and to each other, causally.

Linear layers then compute every token once. Only attention sees padding: pieces of similar length share a call. It
replaces ``sdpa`` in transformers' registry of attention functions by one that does the same, except in a forward
pass that carries a :class:`Layout`.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from reasonrl.errors import is_out_of_memory
from reasonrl.model.mode import in_mode

if TYPE_CHECKING:
    from transformers import PreTrainedModel

KEYWORD = "reasonrl_layout"
_REFUSED = ("softcap", "s_aux", "position_bias")
"""What some models ask of attention besides the softmax of scaled products."""
_STEP, _SHORTEST = 1.4, 16
"""Lengths of pieces that are computed together differ by at most this factor, unless they are short."""


@dataclass(frozen=True, slots=True)
class _Piece:
    """``length`` tokens from ``start`` in the packed sequence."""

    start: int
    length: int
    prompt: _Piece | None = None

    @property
    def offset(self) -> int:
        """Position of its first token."""
        return self.prompt.length if self.prompt else 0

    @property
    def size_class(self) -> tuple[int, int]:
        return _size_class(self.offset), _size_class(self.length)


def _size_class(length: int) -> int:
    return math.ceil(math.log(max(length, _SHORTEST) / _SHORTEST, _STEP)) if length else -1


class Layout:
    """Which tokens of a packed sequence attend to which: what attention needs in each layer."""

    def __init__(self, pieces: Iterable[_Piece], device: torch.device) -> None:
        alike: dict[tuple[int, int], list[_Piece]] = {}
        for piece in pieces:
            alike.setdefault(piece.size_class, []).append(piece)
        self._device = device
        self._shapes: list[tuple[int, int, int]] = []
        """Of each attention call: pieces, queries, keys."""
        self._allowed: list[Tensor | None] = []
        """Keys of each query, ``[B or 1, 1, Q, K]`` bool; None: causal."""
        self._biases: dict[tuple[int, torch.dtype, int], Tensor] = {}
        queries, keys = zip(*(self._add(alike[key]) for key in sorted(alike)), strict=True)
        flat = np.concatenate(queries)
        self._queries, self._keys = self._tensor(flat), self._tensor(np.concatenate(keys))
        # Padding repeats a piece's last token; counted backward, the first of equals is the token itself.
        place = np.zeros(flat.max() + 1, dtype=np.int64)
        place[flat[::-1]] = np.arange(len(flat))[::-1]
        self._place = self._tensor(place)

    @property
    def pairs(self) -> float:
        """Pairs of query and key that attention computes, padding included."""
        found = zip(self._shapes, self._allowed, strict=True)
        return float(sum(b * q * (k if mask is not None else (q + 1) / 2) for (b, q, k), mask in found))

    def attend(self, query: Tensor, key: Tensor, value: Tensor, scale: float | None, dropout: float) -> Tensor:
        """Attention of the packed sequence.

        Args:
            query: ``[1, H, S, D]``.
            key: ``[1, K, S, D]``; each of the K heads serves H / K of the query's.
            value: ``[1, K, S, E]``.

        Returns:
            ``[1, S, H, E]``.
        """
        heads, groups = key.shape[1], query.shape[1] // key.shape[1]
        q, k, v = (
            _rows(x).index_select(0, index).split([b * (q, kv)[of_keys] for b, q, kv in self._shapes])
            for x, index, of_keys in ((query, self._queries, 0), (key, self._keys, 1), (value, self._keys, 1))
        )
        outputs = []
        for number, (b, length, past) in enumerate(self._shapes):
            # [B, heads, groups, Q, D]: the queries of a group of heads are more queries of the one head.
            asked = q[number].view(b, length, heads, groups, -1).permute(0, 2, 3, 1, 4)
            known, wanted = (x[number].view(b, past, heads, -1).transpose(1, 2) for x in (k, v))
            options: dict[str, Any] = {"scale": scale, "dropout_p": dropout}
            bias = self._bias(number, query.dtype, groups)
            if bias is None:
                asked = asked.flatten(1, 2)
                options |= {"is_causal": True, "enable_gqa": groups > 1}
            else:
                asked = asked.flatten(2, 3)
                options["attn_mask"] = bias
            found = functional.scaled_dot_product_attention(asked, known, wanted, **options)
            found = found.reshape(b, heads, groups, length, -1).permute(0, 3, 1, 2, 4)
            outputs.append(found.reshape(b * length, -1))
        return torch.cat(outputs).index_select(0, self._place).view(1, len(self._place), heads * groups, -1)

    def _add(self, pieces: Sequence[_Piece]) -> tuple[np.ndarray, np.ndarray]:
        """One attention call for ``pieces``: the tokens that are its queries and its keys."""
        own = _indices(pieces)
        keys = own
        if pieces[0].prompt is None:
            self._allowed.append(None)
        else:
            prompts = [piece.prompt for piece in pieces if piece.prompt is not None]
            keys = np.concatenate([_indices(prompts), own], axis=1)
            self._allowed.append(self._tensor(_allowed([prompt.length for prompt in prompts], own.shape[1])))
        self._shapes.append((*own.shape, keys.shape[1]))
        return own.reshape(-1), keys.reshape(-1)

    def _bias(self, number: int, dtype: torch.dtype, groups: int) -> Tensor | None:
        """What to add to the products of a call, made once for all layers."""
        allowed = self._allowed[number]
        if allowed is None:
            return None
        if (number, dtype, groups) not in self._biases:
            bias = torch.zeros(allowed.shape, dtype=dtype, device=allowed.device)
            bias = bias.masked_fill_(~allowed, -torch.inf).repeat(1, 1, groups, 1)
            self._biases[number, dtype, groups] = bias
        return self._biases[number, dtype, groups]

    def _tensor(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(array).to(self._device)


def _rows(tensor: Tensor) -> Tensor:
    """``[1, H, S, D]`` as ``[S, H * D]``."""
    return tensor[0].transpose(0, 1).flatten(1)


def _indices(pieces: Sequence[_Piece]) -> np.ndarray:
    """Tokens of ``pieces``, ``[B, longest]``, padded with the last one."""
    starts, lengths = (np.array([getattr(p, name) for p in pieces])[:, None] for name in ("start", "length"))
    found: np.ndarray = starts + np.minimum(np.arange(lengths.max())[None], lengths - 1)
    return found


def _allowed(prompts: Sequence[int], length: int) -> np.ndarray:
    """Keys of each query: those of the prompt, without padding, then those up to itself."""
    known = np.arange(max(prompts))[None] < np.array(prompts)[:, None]
    if known.all():
        known = known[:1]
    shape = (len(known), 1, length)
    causal = np.tri(length, dtype=bool)[None, None]
    return np.concatenate(
        [np.broadcast_to(known[:, None, None], (*shape, known.shape[1])), np.broadcast_to(causal, (*shape, length))],
        axis=3,
    )


class Packed:
    """Rows ``[B, T]`` as one sequence, up to the last state that is needed of each row.

    ``inputs``: arguments of a transformers model. ``num_tokens``: S.
    """

    def __init__(self, input_ids: Tensor, response_mask: Tensor) -> None:
        ids, asked = input_ids.cpu().numpy(), response_mask[:, 1:].cpu().numpy()
        rows = np.flatnonzero(asked.any(axis=1))
        self._ids, self._pieces = ids, list[_Piece]()
        self._tokens, self._positions = list[np.ndarray](), list[np.ndarray]()
        self.num_tokens = 0
        # Where column c of a row is: first + c up to its split, then second + c.
        self._places = np.zeros((3, len(ids)), dtype=np.int64)
        starts, width = asked.argmax(axis=1) + 1, ids.shape[1]
        ends = width - 1 - asked[:, ::-1].argmax(axis=1)
        groups: dict[bytes, list[int]] = {}
        for row in rows:
            groups.setdefault(ids[row, : starts[row]].tobytes(), []).append(int(row))
        for members in groups.values():
            self._add(members, int(starts[members[0]]), ends)
        device = input_ids.device
        self._moved = torch.from_numpy(self._places).to(device)
        self.layout = Layout(self._pieces, device)
        self.inputs: dict[str, Any] = {
            "input_ids": torch.from_numpy(np.concatenate(self._tokens)).to(device)[None],
            "position_ids": torch.from_numpy(np.concatenate(self._positions)).to(device)[None],
            # Four dimensions: a mask that transformers takes as it is. The layout says who attends to whom.
            "attention_mask": torch.ones((1, 1, 1, 1), dtype=torch.bool, device=device),
            KEYWORD: self.layout,
        }

    def find(self, rows: Tensor, columns: Tensor) -> Tensor:
        """Where in the sequence the columns of ``[B, T]`` are, ``[N]``."""
        split, first, second = self._moved[:, rows]
        return columns + torch.where(columns < split, first, second)

    def _add(self, rows: Sequence[int], start: int, ends: np.ndarray) -> None:
        """Rows with one prompt of ``start`` tokens."""
        if len(rows) == 1:
            piece = self._append(rows[0], 0, int(ends[rows[0]]))
            self._places[:, rows[0]] = self._ids.shape[1], piece.start, 0
            return
        prompt = self._append(rows[0], 0, start)
        for row in rows:
            self._places[:, row] = start, prompt.start, self.num_tokens - start
            if ends[row] > start:
                self._append(row, start, int(ends[row]), prompt)

    def _append(self, row: int, first: int, end: int, prompt: _Piece | None = None) -> _Piece:
        piece = _Piece(self.num_tokens, end - first, prompt)
        self._pieces.append(piece)
        self._tokens.append(self._ids[row, first:end])
        self._positions.append(np.arange(first, end))
        self.num_tokens += piece.length
        return piece


def packs_up_to(model: PreTrainedModel) -> int:
    """Find out whether packed rows of ``model`` come out as padded ones do; registers the attention function.

    Returns:
        The longest row that may be packed: 0 for models with another kind of attention, position or state, and at most
        the window where attention is local.
    """
    config = model.config.get_text_config()
    if config._attn_implementation != "sdpa" or _depends_on_the_longest_row(config):
        return 0
    _register()
    windows = _Probe()
    try:
        with torch.no_grad(), in_mode(model, training=False):
            is_exact = _is_exact(model, windows)
    except Exception as error:  # models of any origin: whatever they raise, they do not take packed rows
        if is_out_of_memory(error):
            raise
        return 0
    if not is_exact or windows.calls != config.num_hidden_layers:
        return 0
    return windows.shortest


class _Probe:
    """A layout's stand-in that notes the calls, and the windows that they ask for."""

    calls, shortest = 0, sys.maxsize
    layout: Layout

    def attend(self, *arguments: Any) -> Tensor:
        self.calls += 1
        return self.layout.attend(*arguments)


def _is_exact(model: PreTrainedModel, probe: _Probe) -> bool:
    ids = torch.tensor([[5, 6, 7, 8, 1, 2, 3], [5, 6, 7, 8, 3, 1, 4], [6, 5, 2, 9, 1, 1, 7]], device=model.device)
    asked = torch.arange(7, device=model.device)[None] >= torch.tensor([[4], [4], [2]], device=model.device)
    packed = Packed(ids, asked)
    probe.layout = packed.layout
    rows, columns = asked[:, 1:].nonzero(as_tuple=True)
    plain = model.base_model(input_ids=ids, use_cache=False).last_hidden_state[rows, columns]
    inputs = {**packed.inputs, KEYWORD: probe}
    found = model.base_model(**inputs, use_cache=False).last_hidden_state[0, packed.find(rows, columns)]
    far = (found - plain).norm(dim=-1) > torch.finfo(plain.dtype).eps ** 0.5 * plain.norm(dim=-1)
    return not bool(far.any() or found.isnan().any())


def _depends_on_the_longest_row(config: Any) -> bool:
    """Whether positions are scaled by the longest row that is computed together, or attention is cut into chunks."""
    kinds = str(getattr(config, "rope_parameters", "")), str(getattr(config, "layer_types", ""))
    return any(word in kind for kind in kinds for word in ("dynamic", "longrope", "chunked"))


def _register() -> None:
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS, AttentionInterface

    plain: Callable[..., Any] = ALL_ATTENTION_FUNCTIONS["sdpa"]
    if getattr(plain, KEYWORD, False):
        return

    def sdpa(module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **options: Any) -> Any:
        layout = options.pop(KEYWORD, None)
        if layout is None:
            return plain(module, query, key, value, mask, **options)
        refused = [name for name in _REFUSED if options.get(name) is not None]
        if refused or options.get("is_causal") is False:
            raise NotImplementedError(f"packed rows with {refused}")
        if isinstance(layout, _Probe):
            layout.shortest = min(layout.shortest, options.get("sliding_window") or sys.maxsize)
        return layout.attend(query, key, value, options.get("scaling"), options.get("dropout", 0.0)), None

    setattr(sdpa, KEYWORD, True)
    AttentionInterface.register("sdpa", sdpa)

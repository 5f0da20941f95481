"""A causal LM together with its key-value cache, whatever this version of transformers calls the argument."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from reasonrl.errors import RAISABLE, RolloutError
from reasonrl.functional.precision import narrow_cache
from reasonrl_hf.fused import FusedCache, FusedStep, why_not

log = logging.getLogger(__name__)


class CachedModel:
    """Forward passes of a transformers causal LM that fill and extend a cache.

    The name of the cache argument has changed between minor releases. A model returns its cache under the name by
    which it takes it back, so the name is read from an output, and one decoding step shows that it is right.

    ``fused``: decode by :class:`~reasonrl_hf.fused.FusedStep` where it computes the same, as a dry run shows.

    Raises:
        RolloutError: if the model keeps no cache, or one that cannot be reordered.
    """

    def __init__(
        self, model: Any, on_computed: Callable[[int, int, float], None] = lambda *_: None, *, fused: bool = False
    ) -> None:
        self.model, self._on_computed = model, on_computed
        self._fused = False
        self._length = 0  # of the cache in use
        accepted = inspect.signature(model.forward).parameters
        self._takes_positions = "position_ids" in accepted
        self._keeps_logits = {"logits_to_keep": 1} if "logits_to_keep" in accepted else {}
        self._argument = ""
        self._probe(fused)

    @property
    def device(self) -> torch.device:
        """That of the weights; sharding moves them."""
        return self.model.get_input_embeddings().weight.device

    def prefill(self, ids: Tensor, mask: Tensor | None, positions: Tensor) -> tuple[Tensor, Any]:
        """Last logits ``[B, V]`` of prompts ``[B, T]`` (padded on the left), and a new cache that holds them."""
        output = self._forward(ids, mask, positions)
        rows, self._length = ids.shape
        self._on_computed(ids.numel(), rows, ids.numel() * (self._length + 1) / 2)
        cache = output[self._argument]
        if self._is_autocast():
            narrow_cache(cache, torch.get_autocast_dtype(self.device.type))
        elif self._fused and why_not(self.model) is None:
            cache, self._step = FusedCache(cache, mask), FusedStep(self.model)
        return output.logits[:, -1], cache

    def decode(self, cache: Any, ids: Tensor, mask: Tensor | None, positions: Tensor) -> Tensor:
        """Logits ``[B, V]`` after one more token each, ``[B, 1]``; ``cache`` grows in place."""
        self._length += 1
        self._on_computed(len(ids), len(ids), float(len(ids) * self._length))
        if isinstance(cache, FusedCache):
            return self._step(cache, ids[:, 0], positions[:, 0])
        return self._forward(ids, mask, positions, **{self._argument: cache}).logits[:, -1]

    def _is_autocast(self) -> bool:
        kind = self.device.type
        return torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)

    def _forward(self, ids: Tensor, mask: Tensor | None, positions: Tensor, **cache: Any) -> Any:
        options = {"position_ids": positions} if self._takes_positions else {}
        return self.model(input_ids=ids, attention_mask=mask, use_cache=True, **options, **self._keeps_logits, **cache)

    @torch.no_grad()
    def _probe(self, fused: bool) -> None:
        was_training = self.model.training
        self.model.eval()
        try:
            self._argument = self._find_argument()
            if (why := self._dry_run()) is not None:
                raise self._unusable(why)
            if fused:
                self._probe_fused()
        except (AttributeError, NotImplementedError, TypeError) as err:
            raise self._unusable(f"{type(err).__name__}: {err}") from err
        finally:
            self.model.train(was_training)

    def _probe_fused(self) -> None:
        """Turn the fused step on where it works; whatever it raises with another version's classes costs speed only."""
        try:
            self._fused = not self._is_autocast() and why_not(self.model) is None
            why = self._dry_run() if self._fused else None
        except RAISABLE as err:
            why = f"{type(err).__name__}: {err}"
        if why is not None:
            self._fused = False
            log.warning("hf: fused decoding is off, so sampling is slower: %s", why)

    def _find_argument(self) -> str:
        from transformers import Cache

        ids = torch.zeros((1, 1), dtype=torch.int64, device=self.device)
        output = self._forward(ids, None, ids)
        found = [name for name, value in output.items() if isinstance(value, Cache)]
        if len(found) != 1:
            raise self._unusable("its output holds none")
        if self._forward(ids, None, ids + 1, **{found[0]: output[found[0]]})[found[0]] is not output[found[0]]:
            raise self._unusable(f"it ignores the argument {found[0]!r}")
        return found[0]

    def _dry_run(self) -> str | None:
        """Sample as the decoder does: a prompt behind padding, exchanged rows, two more tokens. Returns what is wrong.

        The logits must be those of a plain forward pass; a recurrent state, for instance, has read the padding.
        """
        ids = torch.tensor([[0, 1, 2, 3], [0, 0, 0, 1]], device=self.device)
        positions = torch.tensor([[0, 1, 2, 3], [0, 0, 0, 1]], device=self.device)
        mask = torch.tensor([[1, 1, 1, 1, 1, 1], [0, 0, 1, 1, 1, 1]], device=self.device)
        exchanged = torch.tensor([1, 0], device=self.device)
        _, cache = self.prefill(ids, mask[:, :4], positions)
        cache.reorder_cache(exchanged)
        for width, newest in ((5, [[2], [3]]), (6, [[1], [0]])):
            places = torch.tensor([[width - 3], [width - 1]], device=self.device)
            stepwise = self.decode(cache, torch.tensor(newest, device=self.device), mask[exchanged, :width], places)
        for logits, whole in zip(stepwise, ([0, 1, 2, 1], [0, 1, 2, 3, 3, 0]), strict=True):
            row = torch.tensor([whole], device=self.device)
            plain = self._forward(row, None, torch.arange(len(whole), device=self.device)[None]).logits[0, -1]
            tolerance = torch.finfo(plain.dtype).eps ** 0.5 * float(plain.abs().max().clamp(min=1e-3))
            if plain.isfinite().all() and not (logits - plain).abs().max() <= tolerance:
                return "its logits with the cache are not those without it"
        return None

    def _unusable(self, why: str) -> RolloutError:
        import transformers

        return RolloutError(
            f"hf: {type(self.model).__name__} gives no key-value cache that this backend can use ({why}; "
            f"transformers {transformers.__version__}); choose an attention model or another rollout backend"
        )

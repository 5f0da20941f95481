"""Load new weights into vLLM's model, completely or with an error."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from torch import Tensor

from reasonrl.contracts.models import base_model
from reasonrl.errors import RAISABLE, RolloutError

SHOWN = 3


def deliver(worker: Any, weights: Iterable[tuple[str, Tensor]]) -> list[str]:
    """Load ``weights`` into the model of vLLM's ``worker``; returns the parameters that got nothing, or not all.

    vLLM copies layer by layer: a layer's tensors are held until all of them are there, then copied over the old
    ones. A second copy of the model never exists. What it misses it only logs, and its log is off.
    """
    model = worker.get_model()
    expected = [name for name, _ in model.named_parameters()]
    missing: list[str] = []
    load = model.load_weights

    def load_and_look(given: Iterable[tuple[str, Tensor]]) -> Any:
        try:
            loaded = load(given)
        except RAISABLE:  # a partial layer must not leak into the next sync
            _finalize(worker, model)
            raise
        missing.extend(undelivered(model, expected, loaded))
        return loaded

    model.load_weights = load_and_look
    try:
        worker.reload_weights(weights_iterator=weights)
    finally:
        del model.load_weights
    return missing


def undelivered(model: Any, expected: Sequence[str], loaded: set[str] | None) -> list[str]:
    """Return the names of ``expected`` that got no weights.

    ``loaded`` is what the model says that it took. Matrices that vLLM fuses, such as q, k and v, count as taken with
    one of them: there the number of values is looked at. A model that says nothing is looked at layer by layer.
    """
    from vllm.model_executor.model_loader.reload.layerwise import get_layerwise_info

    missing = [] if loaded is None else [name for name in expected if name not in loaded]
    for path, layer in model.named_modules():
        info = get_layerwise_info(layer)
        if not info.can_load():
            continue  # complete and already copied
        names = [name for name in _own_parameters(path, layer) if name in expected and name not in missing]
        if info.load_numel == 0 and loaded is None:
            missing += names
        elif 0 < info.load_numel < (info.load_numel_total or 0):
            missing += [f"{name} (partially)" for name in names if _is_partial(name, layer, info)]
    return missing


def check_delivered(missing: Sequence[str]) -> None:
    """Raise RolloutError if parameters got no weights; vLLM would sample from uninitialized values."""
    if missing:
        more = f" and {len(missing) - SHOWN} more" if len(missing) > SHOWN else ""
        raise RolloutError(
            f"vllm: {', '.join(missing[:SHOWN])}{more} got no weights from the trainer; vLLM's model of this "
            "architecture differs from the trainer's; set rollout_backend.name to hf"
        )


def _own_parameters(path: str, layer: Any) -> Iterator[str]:
    return (f"{path}.{name}" if path else name for name, _ in layer.named_parameters(recurse=False))


def _is_partial(name: str, layer: Any, info: Any) -> bool:
    """Whether a linear layer or expert got too few values. Embeddings may, because vLLM pads vocabularies."""
    from vllm.model_executor.layers.fused_moe.routed_experts import RoutedExperts
    from vllm.model_executor.layers.linear import LinearBase
    from vllm.model_executor.model_loader.reload.layerwise import _get_original_loader
    from vllm.model_executor.model_loader.reload.meta import get_numel_loaded
    from vllm.model_executor.model_loader.reload.utils import get_tensor_load_numel

    if not isinstance(layer, LinearBase | RoutedExperts):
        return False
    parameter = getattr(layer, name.rpartition(".")[2])
    loader = _get_original_loader(parameter)
    given = [args for own, args in info.loaded_weights if own == name.rpartition(".")[2]]
    return sum(get_numel_loaded(loader, args)[0] for args in given) < get_tensor_load_numel(parameter)


def _finalize(worker: Any, model: Any) -> None:
    from vllm.model_executor.model_loader.reload.layerwise import finalize_layerwise_reload

    finalize_layerwise_reload(model, worker.model_runner.vllm_config.model_config)


def filter_known(tied: dict[str, str], of_engine: Any) -> dict[str, str]:
    """Keep the ``tied`` names that exist in the engine's model; some have no separate head."""
    known = [name for name, _ in of_engine.named_parameters()]
    return {a: b for a, b in tied.items() if any(f".{name}".endswith(f".{a}") for name in known)}


class Delivery:
    """Iterates over weights, tied ones under both names. ``name`` is the last one yielded."""

    def __init__(self, weights: Iterable[tuple[str, Tensor]], tied: dict[str, str]) -> None:
        self._weights, self._tied = weights, tied
        self.name = ""

    def __iter__(self) -> Iterator[tuple[str, Tensor]]:
        for name, tensor in self._weights:
            seconds = (second for second, first in self._tied.items() if first == name)
            for each in (name, *seconds):
                self.name = each
                yield each, tensor


def architecture(model: Any) -> str:
    """Return the name of the model's class, without FSDP's prefix."""
    return type(base_model(model)).__name__.removeprefix("FSDP")

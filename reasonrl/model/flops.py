"""Floating-point operations of a causal LM, counted from the shapes of its modules."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import nn

from reasonrl.contracts.models import base_model

if TYPE_CHECKING:
    from reasonrl.model.policy import PolicyModule


@dataclass(frozen=True, slots=True)
class Amount:
    """Work of forward passes: tokens through the layers, tokens through the head, pairs of query and key."""

    tokens: float = 0.0
    scored: float = 0.0
    pairs: float = 0.0

    def __add__(self, other: Amount) -> Amount:
        return Amount(self.tokens + other.tokens, self.scored + other.scored, self.pairs + other.pairs)


def causal_pairs(new: float, past: float = 0.0) -> float:
    """(query, key) pairs of ``new`` tokens behind ``past`` others; each token also attends to itself."""
    return new * past + new * (new + 1) / 2


@dataclass(frozen=True, slots=True)
class Flops:
    """Operations of one network, forward and backward: a token in the layers, a token in the head, a pair.

    A product of a token with N weights takes 2N operations, its gradient for the input as many, and for trainable
    weights as many again. Norms, activations, softmax and the optimizer are not counted, as usual.
    """

    layers: float = 0.0
    layers_back: float = 0.0
    head: float = 0.0
    head_back: float = 0.0
    pair: float = 0.0
    pair_back: float = 0.0
    adapters: float = 0.0
    """The part of ``layers`` that is missing while adapters are disabled."""

    def forward(self, amount: Amount, *, adapters: bool = True) -> float:
        """Operations of forward passes."""
        layers = self.layers if adapters else self.layers - self.adapters
        return amount.tokens * layers + amount.scored * self.head + amount.pairs * self.pair

    def backward(self, amount: Amount) -> float:
        """Operations of the gradient; without recomputation."""
        return amount.tokens * self.layers_back + amount.scored * self.head_back + amount.pairs * self.pair_back


@dataclass(frozen=True, slots=True)
class Network:
    """What a forward pass runs: a trunk, or another network's, and a head on its hidden states."""

    trunk: nn.Module | None
    head: nn.Module | None
    flops: Flops


def networks(policy: PolicyModule) -> list[Network]:
    """The policy, and its critic if there is one."""
    base = base_model(policy.model)
    found = [_network(base.base_model, base.get_output_embeddings(), base.config.get_text_config())]
    if (critic := policy.critic) is not None:
        config = base.config.get_text_config() if critic.decoder is not None else None
        found.append(_network(critic.decoder, critic.head, config))
    return found


def _network(trunk: nn.Module | None, head: nn.Module | None, config: Any) -> Network:
    layers = layers_back = adapters = reached = total = 0.0
    is_reached = trunk is None  # by the gradient: something trainable comes earlier
    for name, module in trunk.named_modules() if trunk is not None else ():
        products, trained = _products(module, config)
        layers_back += 2 * products * is_reached + 2 * trained
        layers += 2 * products
        adapters += 2 * products * (".lora_" in name)
        total += products
        is_reached = is_reached or any(p.requires_grad for p in module.parameters(recurse=False))
        reached += products * is_reached
    head_products, head_trained = _products(head, config) if head is not None else (0.0, 0.0)
    pair = 4.0 * _attention_widths(config) if trunk is not None else 0.0
    return Network(
        trunk,
        head,
        Flops(
            layers=layers,
            layers_back=layers_back,
            head=2 * head_products,
            head_back=2 * head_products * is_reached + 2 * head_trained,
            pair=pair,
            pair_back=2 * pair * reached / max(total, 1.0),
            adapters=adapters,
        ),
    )


def _products(module: nn.Module, config: Any) -> tuple[float, float]:
    """Weights that a token is multiplied with in ``module`` itself: all of them, and the trainable ones."""
    if isinstance(module, nn.Embedding):
        return 0.0, 0.0
    if isinstance(module, nn.Linear):  # weights of 4 bits do not have the layer's shape
        size = float(module.in_features * module.out_features)
        return size, size * module.weight.requires_grad
    found = [(_used(p, module, config), p.requires_grad) for p in _matrices(module)]
    return sum(size for size, _ in found), sum(size for size, trained in found if trained)


def _matrices(module: nn.Module) -> Iterator[nn.Parameter]:
    return (p for p in module.parameters(recurse=False) if p.ndim >= 2)


def _used(parameter: nn.Parameter, module: nn.Module, config: Any) -> float:
    """Of a mixture of experts ``[E, ...]``, a token is multiplied with those that it is routed to."""
    if parameter.ndim < 3 or isinstance(module, nn.Conv1d):
        return float(parameter.numel())
    chosen = getattr(config, "num_experts_per_tok", None) or parameter.shape[0]
    return parameter.numel() * min(1.0, chosen / parameter.shape[0])


def _attention_widths(config: Any) -> float:
    """Heads times their width, summed over the layers. Each is taken to attend to all earlier tokens."""
    heads, layers = getattr(config, "num_attention_heads", None), getattr(config, "num_hidden_layers", None)
    if not isinstance(heads, int) or not isinstance(layers, int) or not heads:
        return 0.0
    return float(layers * heads * (getattr(config, "head_dim", None) or config.hidden_size // heads))

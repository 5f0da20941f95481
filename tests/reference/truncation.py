"""Top-k and top-p token by token in Python floats."""

import math
from collections.abc import Sequence


def kept_tokens(logits: Sequence[float], temperature: float, top_k: int | None, top_p: float) -> set[int]:
    """Temperature, then top-k with ties, then the fewest most likely tokens whose share of the rest reaches top_p."""
    weights = [math.exp(value / temperature) for value in logits]
    order = sorted((i for i in range(len(weights)) if weights[i] > 0), key=lambda i: -weights[i])
    if top_k is not None and top_k < len(order):
        order = [i for i in order if weights[i] >= weights[order[top_k - 1]]]
    total, kept, mass = math.fsum(weights[i] for i in order), set(), 0.0
    for i in order:
        if mass >= top_p * total and kept:
            break
        kept.add(i)
        mass += weights[i]
    return kept

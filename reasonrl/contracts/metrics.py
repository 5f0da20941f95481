"""Metrics that reduce exactly, and the declaration of every metric key.

A mean carries its weight, so that the mean over micro-batches and ranks is the mean over rows, not a mean of means.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import Tensor

Reduction = Literal["mean", "sum", "max"]


@dataclass(frozen=True, slots=True)
class Metric:
    """One partial result. ``value`` and ``weight`` may be Python numbers or scalar tensors.

    ``mean``: ``value`` is the *sum* over ``weight`` items. ``sum`` and ``max`` ignore ``weight``.
    """

    value: float | Tensor
    weight: float | Tensor = 1.0
    reduction: Reduction = "mean"


def mean(total: float | Tensor, weight: float | Tensor) -> Metric:
    """The mean of ``weight`` items that add up to ``total``."""
    return Metric(total, weight, "mean")


def combine(parts: Iterable[Mapping[str, Metric]]) -> dict[str, Metric]:
    """Add up partial metrics of micro-batches, key by key."""
    out: dict[str, Metric] = {}
    for part in parts:
        for key, metric in part.items():
            out[key] = _add(out[key], metric) if key in out else metric
    return out


def _add(a: Metric, b: Metric) -> Metric:
    if a.reduction != b.reduction:
        raise ValueError(f"one metric key with two reductions: {a.reduction} and {b.reduction}")
    if a.reduction == "max":
        # max() in Python drops NaN depending on the order of its arguments; a NaN must stay visible.
        return Metric(a.value if a.value != a.value or a.value >= b.value else b.value, 1.0, "max")
    return Metric(a.value + b.value, a.weight + b.weight, a.reduction)


def resolve(metrics: Mapping[str, Metric]) -> dict[str, float]:
    """Turn fully reduced metrics into numbers. A mean over nothing is left out."""
    out: dict[str, float] = {}
    for key, metric in metrics.items():
        if metric.reduction == "mean":
            if float(metric.weight) > 0:
                out[key] = float(metric.value) / float(metric.weight)
        else:
            out[key] = float(metric.value)
    return out


@dataclass(frozen=True, kw_only=True, slots=True)
class MetricDef:
    """Declares a metric key once. ``<name>`` in a key stands for one path-free word."""

    key: str
    unit: str
    meaning: str

"""The coefficient of a KL penalty, constant or led toward a target. Torch-free."""

import math
from collections.abc import Mapping
from typing import Any, Literal

from reasonrl.contracts.metrics import Metric, mean
from reasonrl.contracts.options import require

MAX_ERROR = 0.2
"""Relative errors are clipped to +-0.2."""


def adapt_kl_coef(coef: float, measured: float, *, target: float, horizon: float) -> float:
    """Return the next coefficient: larger if the measured KL is above the target, smaller if it is below.

    e = clip((measured - target) / target, -0.2, 0.2), coef' = coef * (1 + e / horizon)

    Source: arXiv:1909.08593 section 2.2, whose K is 1 / horizon; it uses K = 0.1. A measurement that is not finite
    changes nothing.
    """
    if not math.isfinite(measured):
        return coef
    error = min(max(measured / target - 1.0, -MAX_ERROR), MAX_ERROR)
    return coef * (1.0 + error / horizon)


class KLCoefficient:
    """The coefficient in force. It is constant without a ``target``, in nats per token.

    Every process sees the same metrics, so that all hold the same coefficient.
    """

    def __init__(
        self, coef: float, *, target: float | None, horizon: float, placement: Literal["reward", "loss"]
    ) -> None:
        self.value = coef
        self._target, self._horizon = target, horizon
        self._measured_by = "policy/kl_ref_k1" if placement == "reward" else "policy/kl_ref_k3"

    @property
    def metrics(self) -> dict[str, Metric]:
        """The coefficient, if it changes."""
        return {} if self._target is None else {"policy/kl_coef": mean(self.value, 1.0)}

    def after_step(self, metrics: Mapping[str, float]) -> None:
        """Adapt to the KL that the step has measured; a step that was skipped has measured none."""
        measured = metrics.get(self._measured_by)
        if self._target is not None and measured is not None:
            self.value = adapt_kl_coef(self.value, measured, target=self._target, horizon=self._horizon)

    def state_dict(self) -> dict[str, float]:
        """What ``load_state_dict`` needs; nothing if the coefficient is constant."""
        return {} if self._target is None else {"kl_coef": self.value}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue with the coefficient of a saved run."""
        self.value = state.get("kl_coef", self.value)


class KLControlled:
    """The optional methods of an algorithm whose only state is the coefficient ``kl``."""

    kl: KLCoefficient

    def after_step(self, metrics: Mapping[str, float]) -> None:
        """Adapt the KL coefficient, if it has a target."""
        self.kl.after_step(metrics)

    def state_dict(self) -> dict[str, float]:
        """The KL coefficient, if it has a target."""
        return self.kl.state_dict()

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """Continue with a saved KL coefficient."""
        self.kl.load_state_dict(state)


def check_kl_target(coef: float, target: float | None, horizon: float) -> None:
    """Refuse options of an adaptive coefficient that contradict each other.

    Raises:
        ValueError: naming the options as ``kl.coef``, ``kl.target`` and ``kl.horizon``.
    """
    require(1 <= horizon < math.inf, "kl.horizon", ">= 1", horizon)
    require(target is None or 0 < target < math.inf, "kl.target", "> 0, or null for a constant kl.coef", target)
    require(target is None or coef > 0, "kl.coef", "> 0 with a kl.target, which it is multiplied toward", coef)

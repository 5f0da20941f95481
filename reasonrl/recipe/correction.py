"""The recipe's section ``rollout_correction``."""

from dataclasses import dataclass
from typing import Literal

from reasonrl.contracts.options import require
from reasonrl.recipe.fields import option


@dataclass(frozen=True, kw_only=True)
class RolloutCorrectionConfig:
    """Importance weights p_trainer / p_sampler of the policy term, for a sampler that differs from the trainer."""

    level: Literal["token", "sequence", "geometric"] = option(
        "ratio per token, its product over the completion, or its geometric mean over the completion", "token"
    )
    mode: Literal["truncate", "mask"] = option(
        "truncate: clip ratios at threshold; mask: drop ratios outside [threshold_low, threshold]", "truncate"
    )
    threshold: float = option("largest ratio, >= 1", 2.0)
    threshold_low: float | None = option("smallest ratio with mode mask; null = 1 / threshold", None)

    def __post_init__(self) -> None:
        require(self.threshold >= 1, "threshold", ">= 1", self.threshold)
        low = self.threshold_low
        require(low is None or self.mode == "mask", "threshold_low", "null when mode is truncate", low)
        require(low is None or 0 <= low <= 1, "threshold_low", "in [0, 1]", low)
        if self.level == "geometric" and self.mode == "truncate":
            raise ValueError("level geometric needs mode mask: a geometric mean is biased as an importance weight")

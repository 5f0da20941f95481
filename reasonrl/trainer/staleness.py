"""Warn during a run when the rollout backend samples with stale weights or different numerics."""

import logging
from collections.abc import Mapping

from reasonrl.contracts.metric_keys import GAP_FLOAT32, GAP_ROUNDED

log = logging.getLogger(__name__)


class GapWatch:
    """Looks at ``rollout/logprob_gap`` after every step; warns when it passes its limit, and when it doubles.

    ``is_float32``: trainer and backend are expected to agree up to rounding in float32.
    """

    def __init__(self, *, is_float32: bool) -> None:
        self._limit = GAP_FLOAT32 if is_float32 else GAP_ROUNDED
        self._warn_at = self._limit

    def look(self, step: int, metrics: Mapping[str, float]) -> bool:
        """Whether step ``step`` was worth a warning."""
        gap = metrics.get("rollout/logprob_gap", 0.0)
        if not gap >= self._warn_at:
            return False
        self._warn_at = 2.0 * gap
        log.warning(
            "step %d: sampler and trainer differ by %.2g nats per token, limit %g (rollout/logprob_gap): the rollout "
            "backend has stale weights or a different precision than the trainer",
            step,
            gap,
            self._limit,
        )
        return True

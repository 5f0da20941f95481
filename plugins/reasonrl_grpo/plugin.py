"""Registers GRPO. Torch-free."""

from collections.abc import Iterable

from reasonrl import AlgorithmSpec, hookimpl
from reasonrl.contracts.metric_keys import POLICY_METRICS
from reasonrl_grpo.config import GRPOConfig, needs


@hookimpl
def reasonrl_algorithms() -> Iterable[AlgorithmSpec]:
    """Register ``grpo``."""
    return [
        AlgorithmSpec(
            name="grpo",
            summary="Clipped policy gradient with group-normalized advantages, no critic.",
            config=GRPOConfig,
            factory="reasonrl_grpo.algorithm:GRPO",
            metrics=POLICY_METRICS,
            papers=("arXiv:2402.03300",),
            needs=needs,
        )
    ]

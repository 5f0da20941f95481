"""Registers PPO. Torch-free."""

from collections.abc import Iterable

from reasonrl import AlgorithmSpec, MetricDef, hookimpl
from reasonrl.contracts.metric_keys import POLICY_METRICS
from reasonrl_ppo.config import PPOConfig, needs

METRICS = (
    *POLICY_METRICS,
    MetricDef(key="loss/value", unit="reward^2", meaning="Half the clipped squared error of the critic."),
    MetricDef(
        key="policy/kl_ref_k1",
        unit="nats/token",
        meaning="KL(policy at the step's start || reference), k1 estimate: the penalty paid in the reward.",
    ),
    MetricDef(
        key="critic/value_clip_frac",
        unit="fraction",
        meaning="Response tokens whose value gradient the value clip removed.",
    ),
    MetricDef(
        key="critic/explained_variance",
        unit="1",
        meaning="1 - Var(returns - values) / Var(returns) before the update: 1 is perfect, 0 no better "
        "than a constant; missing if all returns are equal.",
    ),
    MetricDef(key="critic/values", unit="reward", meaning="Mean value of a token before the update."),
    MetricDef(key="critic/returns", unit="reward", meaning="Mean return, the critic's target."),
)


@hookimpl
def reasonrl_algorithms() -> Iterable[AlgorithmSpec]:
    """Register ``ppo``."""
    return [
        AlgorithmSpec(
            name="ppo",
            summary="Clipped policy gradient with a learned critic and GAE.",
            config=PPOConfig,
            factory="reasonrl_ppo.algorithm:PPO",
            metrics=METRICS,
            papers=("arXiv:1707.06347", "arXiv:1506.02438"),
            needs=needs,
        )
    ]

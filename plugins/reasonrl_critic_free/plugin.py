"""Registers the algorithms without a critic. Torch-free."""

from collections.abc import Iterable

from reasonrl import AlgorithmSpec, MetricDef, hookimpl
from reasonrl.contracts.metric_keys import POLICY_METRICS
from reasonrl_critic_free import config

METRICS = (
    *POLICY_METRICS,
    MetricDef(
        key="policy/kl_ref_k1",
        unit="nats/token",
        meaning="KL(policy at the step's start || reference), k1 estimate: the penalty paid in the reward.",
    ),
)


# Class of the algorithm and of its config, paper, summary.
_FAMILY = {
    "grpo": ("GRPO", "2402.03300", "Clipped policy gradient with group-normalized advantages."),
    "dr_grpo": ("DrGRPO", "2503.20783", "GRPO without division by the standard deviation or by sampled lengths."),
    "dapo": ("DAPO", "2503.14476", "GRPO with clip-higher, dynamic sampling and overlong reward shaping."),
    "rloo": ("RLOO", "2402.14740", "REINFORCE with the mean of the prompt's other completions as baseline."),
    "reinforce_pp": ("ReinforcePP", "2501.03262", "Clipped REINFORCE with advantages normalized over the batch."),
    "reinforce_pp_baseline": ("ReinforcePPBaseline", "2501.03262", "REINFORCE++ with the group's mean as baseline."),
    "gspo": ("GSPO", "2507.18071", "GRPO with one ratio and one clip for each completion."),
    "cispo": ("CISPO", "2506.13585", "REINFORCE weighted by bounded ratios; no token is clipped away."),
    "max_rl": ("MaxRL", "2602.02710", "Advantages divided by the group's mean reward."),
    "gdpo": ("GDPO", "2601.05242", "Each reward normalized by itself, for several rewards."),
    "sapo": ("SAPO", "2511.20347", "A smooth gate on the ratio instead of a clip."),
    "dppo": ("DPPO", "2602.04879", "A trust region on the change of token probabilities."),
}


@hookimpl
def reasonrl_algorithms() -> Iterable[AlgorithmSpec]:
    """Register GRPO and its family."""
    return [
        AlgorithmSpec(
            name=name,
            summary=summary,
            config=getattr(config, f"{title}Config"),
            factory=f"reasonrl_critic_free.algorithm:{title}",
            metrics=METRICS,
            papers=(f"arXiv:{paper}",),
            needs=config.needs_of_singles if name == "reinforce_pp" else config.needs,
        )
        for name, (title, paper, summary) in _FAMILY.items()
    ]

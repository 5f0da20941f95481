"""Registers the algorithms without a critic. Torch-free."""

from collections.abc import Callable, Iterable
from typing import Any

from reasonrl import AlgorithmSpec, MetricDef, Needs, hookimpl
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


def _spec(
    name: str,
    summary: str,
    options: type,
    paper: str,
    *,
    factory: str,
    needs: Callable[[Any], Needs] = config.needs,
) -> AlgorithmSpec:
    return AlgorithmSpec(
        name=name,
        summary=summary,
        config=options,
        factory=f"reasonrl_critic_free.algorithm:{factory}",
        metrics=METRICS,
        papers=(paper,),
        needs=needs,
    )


@hookimpl
def reasonrl_algorithms() -> Iterable[AlgorithmSpec]:
    """Offer GRPO and its family."""
    return [
        _spec(
            "grpo",
            "Clipped policy gradient with group-normalized advantages.",
            config.GRPOConfig,
            "arXiv:2402.03300",
            factory="GRPO",
        ),
        _spec(
            "dr_grpo",
            "GRPO without division by the standard deviation or by sampled lengths.",
            config.DrGRPOConfig,
            "arXiv:2503.20783",
            factory="DrGRPO",
        ),
        _spec(
            "dapo",
            "GRPO with clip-higher, dynamic sampling and overlong reward shaping.",
            config.DAPOConfig,
            "arXiv:2503.14476",
            factory="DAPO",
        ),
        _spec(
            "rloo",
            "REINFORCE with the mean of the prompt's other completions as baseline.",
            config.RLOOConfig,
            "arXiv:2402.14740",
            factory="RLOO",
        ),
        _spec(
            "reinforce_pp",
            "Clipped REINFORCE with advantages normalized over the batch.",
            config.ReinforcePPConfig,
            "arXiv:2501.03262",
            factory="ReinforcePP",
            needs=config.needs_of_singles,
        ),
        _spec(
            "reinforce_pp_baseline",
            "REINFORCE++ with the group's mean as baseline.",
            config.ReinforcePPBaselineConfig,
            "arXiv:2501.03262",
            factory="ReinforcePPBaseline",
        ),
        _spec(
            "gspo",
            "GRPO with one ratio and one clip for each completion.",
            config.GSPOConfig,
            "arXiv:2507.18071",
            factory="GSPO",
        ),
        _spec(
            "cispo",
            "REINFORCE weighted by bounded ratios; no token is clipped away.",
            config.CISPOConfig,
            "arXiv:2506.13585",
            factory="CISPO",
        ),
        _spec(
            "max_rl",
            "Advantages divided by the group's mean reward.",
            config.MaxRLConfig,
            "arXiv:2602.02710",
            factory="MaxRL",
        ),
        _spec(
            "gdpo",
            "Each reward normalized by itself, for several rewards.",
            config.GDPOConfig,
            "arXiv:2601.05242",
            factory="GDPO",
        ),
        _spec(
            "sapo",
            "A smooth gate on the ratio instead of a clip.",
            config.SAPOConfig,
            "arXiv:2511.20347",
            factory="SAPO",
        ),
        _spec(
            "dppo",
            "A trust region on the change of token probabilities.",
            config.DPPOConfig,
            "arXiv:2602.04879",
            factory="DPPO",
        ),
    ]

"""Metric keys that more than one algorithm emits, declared once. Torch-free."""

from reasonrl.contracts.metrics import MetricDef

POLICY_METRICS: tuple[MetricDef, ...] = (
    MetricDef(
        key="loss/policy",
        unit="1",
        meaning="Clipped surrogate over what was trained on; near 0 is normal, its gradient is what counts.",
    ),
    MetricDef(
        key="policy/entropy",
        unit="nats/token",
        meaning="Entropy of the policy at the sampling temperature, over the response tokens trained on.",
    ),
    MetricDef(
        key="policy/clip_frac",
        unit="fraction",
        meaning="Response tokens whose gradient the clip removed; 0 on the first pass over a batch.",
    ),
    MetricDef(
        key="policy/ratio_max",
        unit="1",
        meaning="Largest probability ratio of a token, current policy over that at the step's start.",
    ),
    MetricDef(
        key="policy/kl_old_k3",
        unit="nats/token",
        meaning="KL(policy at the step's start || current), k3 estimate: how far the update has moved.",
    ),
    MetricDef(
        key="policy/kl_ref_k3",
        unit="nats/token",
        meaning="KL(policy || reference), k3 estimate; only when a reference is in use.",
    ),
)

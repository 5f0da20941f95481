"""Update metrics shared by all policy-gradient algorithms."""

import torch
from torch import Tensor

from reasonrl.contracts.batch import LossInput
from reasonrl.contracts.metrics import Metric, mean
from reasonrl.functional.kl import kl_estimate
from reasonrl.functional.masked import masked_sum, zero_outside
from reasonrl.functional.surrogate import Surrogate


@torch.no_grad()
def policy_metrics(inputs: LossInput, surrogate: Surrogate) -> dict[str, Metric]:
    """Compute the ``policy/*`` keys of ``contracts.metric_keys.POLICY_METRICS``, weighted by response tokens."""
    mask = inputs.batch.response_mask
    tokens = mask.sum()
    old = required(inputs.evals.old_logprobs, "old_logprobs")
    metrics = {
        "policy/clip_frac": mean(masked_sum(surrogate.clipped.float(), mask), tokens),
        "policy/ratio_max": Metric(zero_outside(surrogate.ratio, mask).max(), reduction="max"),
        "policy/kl_old_k3": mean(kl_estimate(old, inputs.logprobs, mask, "k3").sum(), tokens),
    }
    if inputs.entropy is not None:
        metrics["policy/entropy"] = mean(masked_sum(inputs.entropy, mask), tokens)
    if inputs.evals.ref_logprobs is not None:
        kl = kl_estimate(inputs.logprobs, inputs.evals.ref_logprobs, mask, "k3")
        metrics["policy/kl_ref_k3"] = mean(kl.sum(), tokens)
    return metrics


def required(tensor: Tensor | None, name: str) -> Tensor:
    """Return ``tensor``, or raise ValueError naming the missing declaration."""
    if tensor is None:
        raise ValueError(f"the algorithm needs {name}, got None; does AlgorithmSpec.needs declare it?")
    return tensor

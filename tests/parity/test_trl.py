"""Losses and gradients that TRL 1.16 has too. Its loss function runs on the same log-probabilities and advantages.

The advantages are ours: TRL divides by the sample's standard deviation plus 1e-4, reasonrl by the group's own.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from reference.token_batches import random_rows, run

from reasonrl import AlgorithmContext, SamplingParams
from reasonrl_critic_free import algorithm as algorithms
from reasonrl_critic_free import config as configs
from reasonrl_critic_free.config import KLConfig

pytestmark = pytest.mark.trl

LIMIT = 5
BATCHES = 300


@dataclass(frozen=True)
class Case:
    """An algorithm of ours, and TRL's options for the same loss."""

    algorithm: Any
    config: Any
    trl: dict[str, Any] = field(default_factory=dict)

    def build(self) -> Any:
        context = AlgorithmContext(
            sampling=SamplingParams(max_completion_tokens=LIMIT), group_size=3, total_steps=10, reward_weights={}
        )
        return self.algorithm(self.config, context)


CASES = {
    "grpo": Case(algorithms.GRPO, configs.GRPOConfig(normalization="sequence"), {"loss_type": "grpo"}),
    "bnpo": Case(algorithms.GRPO, configs.GRPOConfig(normalization="token"), {"loss_type": "bnpo"}),
    "clip_higher": Case(
        algorithms.GRPO,
        configs.GRPOConfig(clip_eps=0.1, clip_eps_high=0.3),
        {"loss_type": "bnpo", "low": 0.1, "high": 0.3},
    ),
    "kl": Case(
        algorithms.GRPO,
        configs.GRPOConfig(kl=KLConfig(coef=0.3), normalization="sequence"),
        {"loss_type": "grpo", "beta": 0.3},
    ),
    "weighted_kl": Case(
        algorithms.GRPO,
        configs.GRPOConfig(kl=KLConfig(coef=0.3, weighted=True)),
        {"loss_type": "bnpo", "beta": 0.3, "use_bias_correction_kl": True},
    ),
    "dr_grpo": Case(algorithms.DrGRPO, configs.DrGRPOConfig(), {"loss_type": "dr_grpo"}),
    "dapo": Case(algorithms.DAPO, configs.DAPOConfig(), {"loss_type": "dapo", "high": 0.28}),
    "gspo": Case(
        algorithms.GSPO,
        configs.GSPOConfig(clip_eps=0.1, clip_eps_high=0.15),
        {"loss_type": "grpo", "importance_sampling_level": "sequence", "low": 0.1, "high": 0.15},
    ),
    "cispo": Case(algorithms.CISPO, configs.CISPOConfig(ratio_max=1.2), {"loss_type": "cispo", "high": 1.2}),
    # TRL rounds the temperatures to float32, in which 1.25 is exact.
    "sapo": Case(algorithms.SAPO, configs.SAPOConfig(temperature_neg=1.25), {"loss_type": "sapo"}),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_trl_has_the_same_loss_and_gradient(case: Case) -> None:
    seeds = (seed for seed in range(100 * BATCHES) if all(random_rows(seed)["scored"]))
    for _ in range(BATCHES):
        rows = random_rows(next(seeds))
        got = run(case.build(), rows)
        loss, gradient = loss_of_trl(rows, got.advantages, **case.trl)
        np.testing.assert_allclose(got.loss, loss, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(got.gradients["logprobs"], gradient, rtol=1e-9, atol=1e-12)


def test_the_comparison_can_fail() -> None:
    """TRL's default for CISPO takes ``epsilon_high`` as the largest weight, which scales gradients down to 0.2."""
    rows = next(rows for rows in map(random_rows, range(100)) if all(rows["scored"]))
    got = run(CASES["cispo"].build(), rows)
    loss, _ = loss_of_trl(rows, got.advantages, loss_type="cispo", high=0.2)
    assert abs(loss - got.loss) > 1e-3


def loss_of_trl(rows: dict[str, Any], advantages: np.ndarray, **options: Any) -> tuple[float, np.ndarray]:
    """``GRPOTrainer._compute_loss`` and its gradient by the log-probabilities, in float64, without a trainer."""
    from trl import GRPOTrainer

    mask = torch.tensor(rows["mask"], dtype=torch.float64)
    per_token = {
        name: torch.tensor(rows[name], dtype=torch.float64) * mask
        for name in ("logprobs", "old_logprobs", "ref_logprobs")
    }
    logprobs = per_token["logprobs"].requires_grad_()
    nothing = torch.zeros(len(mask), 0, dtype=torch.int64)
    inputs = {
        "prompt_ids": nothing,
        "prompt_mask": nothing,
        "completion_ids": torch.zeros(mask.shape, dtype=torch.int64),
        "completion_mask": mask,
        "advantages": torch.tensor(advantages),
        "old_per_token_logps": per_token["old_logprobs"],
        "ref_per_token_logps": per_token["ref_logprobs"],
        "num_items_in_batch": mask.sum(),
    }
    loss = GRPOTrainer._compute_loss(trainer_of_trl(logprobs, **options), None, inputs)
    (gradient,) = torch.autograd.grad(loss, logprobs)
    return float(loss.detach()), gradient.numpy()


def trainer_of_trl(
    logprobs: torch.Tensor,
    *,
    loss_type: str,
    low: float = 0.2,
    high: float = 0.2,
    beta: float = 0.0,
    importance_sampling_level: str = "token",
    use_bias_correction_kl: bool = False,
) -> Any:
    """What the loss reads of a trainer: options, and a forward pass that gives ``logprobs``."""
    same = SimpleNamespace(
        num_processes=1, gather=lambda x: x, gather_for_metrics=lambda x: x, reduce=lambda x, reduction: x
    )
    arguments = SimpleNamespace(
        use_bias_correction_kl=use_bias_correction_kl,
        delta=None,
        sapo_temperature_pos=1.0,
        sapo_temperature_neg=1.25,
        steps_per_generation=1,
    )
    return SimpleNamespace(
        args=arguments,
        accelerator=same,
        model=SimpleNamespace(training=True),
        loss_type=loss_type,
        epsilon_low=low,
        epsilon_high=high,
        beta=beta,
        importance_sampling_level=importance_sampling_level,
        max_completion_length=LIMIT,
        current_gradient_accumulation_steps=1,
        aux_loss_enabled=False,
        top_entropy_quantile=1.0,
        off_policy_mask_threshold=None,
        use_vllm=False,
        _entropy_bonus_enabled=False,
        _metrics={"train": defaultdict(list)},
        _get_per_token_logps_and_entropies=lambda *_, **__: (logprobs, torch.zeros_like(logprobs), None),
    )

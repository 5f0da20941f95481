"""Count non-finite numbers of a batch for the metrics, and diagnose a run whose updates are all skipped."""

from collections.abc import Mapping

import torch
from torch import Tensor

from reasonrl.contracts.batch import AdvantageOutput, PolicyEval, TrainBatch
from reasonrl.contracts.metrics import Metric

SAMPLER = "numerics/nonfinite_rollout_logprobs"
# In the order of cause and effect: the first one found is the one to look into.
CAUSES: Mapping[str, tuple[str, str]] = {
    "numerics/nonfinite_rewards": (
        "rewards",
        "check the rewards and their weights; float32 overflows at 3.4e38",
    ),
    SAMPLER: (
        "the sampler's log-probabilities",
        "check the rollout backend's precision",
    ),
    "numerics/nonfinite_ref_logprobs": (
        "the reference's log-probabilities",
        "the starting model itself computes NaN; try model.dtype=float32",
    ),
    "numerics/nonfinite_values": (
        "the critic's values",
        "lower critic.learning_rate",
    ),
    "numerics/nonfinite_logprobs": (
        "the policy's log-probabilities",
        "the weights have diverged: lower optimizer.learning_rate and start from an earlier checkpoint",
    ),
    "numerics/nonfinite_advantages": (
        "advantages",
        "their inputs are finite, so check the algorithm's compute_advantages",
    ),
    "numerics/nonfinite_losses": (
        "the loss",
        "its inputs are finite, so check the algorithm's compute_loss",
    ),
    "numerics/nonfinite_gradients": (
        "the gradient",
        "the loss is finite: lower optimizer.learning_rate, or use model.dtype=float32",
    ),
}


def diagnose_skips(metrics: Mapping[str, float], consecutive_skips: int) -> str:
    """Why a run that skipped ``consecutive_skips`` updates in a row cannot continue, in one line.

    Args:
        metrics: those of the last step; its ``numerics/*`` counts tell what was not finite first.
    """
    key = next((key for key in CAUSES if metrics.get(key, 0.0) > 0), "")
    what, advice = CAUSES.get(key, ("something", "check the metrics of the last steps"))
    counted = f" ({key} = {metrics[key]:g} in the last step)" if key else ""
    return (
        f"{consecutive_skips} updates in a row were skipped: {what} came out NaN or infinite first{counted}; "
        f"{advice}. The saved parameters are those of the last finite update"
    )


class BatchCheck:
    """Which of the numbers that an update starts from are not finite, over this rank's rows.

    Positions outside ``response_mask`` and rewards of unscored rows do not count. Log-probabilities are in nats,
    shapes as in ``contracts/batch.py``.
    """

    def __init__(
        self, batch: TrainBatch, evals: PolicyEval, advantages: AdvantageOutput, *, needs_rollout_logprobs: bool
    ) -> None:
        mask = batch.response_mask
        rewards = batch.scored & ~torch.isfinite(batch.rewards)
        if batch.token_rewards is not None:
            rewards = rewards | _broken(batch.token_rewards, mask).any(dim=1)
        tokens = {
            SAMPLER: _broken(batch.rollout_logprobs, mask),
            "numerics/nonfinite_ref_logprobs": _broken(evals.ref_logprobs, mask),
            "numerics/nonfinite_values": _broken(evals.values, mask),
            "numerics/nonfinite_logprobs": _broken(evals.old_logprobs, mask),
            "numerics/nonfinite_advantages": (_broken(advantages.advantages, mask) | _broken(advantages.returns, mask)),
        }
        # The sampler's log-probabilities are counted, and cost a step only if the algorithm computes with them.
        used = [flags for key, flags in tokens.items() if needs_rollout_logprobs or key != SAMPLER]
        rows = torch.stack([rewards, *(flags.any(dim=1) for flags in used)])
        self._is_bad_row: list[bool] = rows.any(dim=0).tolist()
        counts = {"numerics/nonfinite_rewards": rewards, **tokens}
        self.metrics = {key: Metric(flags.sum(), 1.0, "sum") for key, flags in counts.items()}

    def bad_rows(self, rows: range) -> int:
        """How many of ``rows`` hold something that is not finite."""
        return sum(self._is_bad_row[row] for row in rows)


def _broken(tensor: Tensor | None, mask: Tensor) -> Tensor:
    return torch.zeros_like(mask) if tensor is None else mask & ~torch.isfinite(tensor)


def count_nonfinite_tokens(tensor: Tensor, mask: Tensor) -> int:
    """How many positions of ``mask`` are NaN or infinite."""
    return int(_broken(tensor.detach(), mask).sum())


def count(key: str, number: float) -> dict[str, Metric]:
    """``numerics/nonfinite_<key>`` as a sum over steps and ranks."""
    return {f"numerics/nonfinite_{key}": Metric(float(number), 1.0, "sum")}

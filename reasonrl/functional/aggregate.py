"""Aggregate per-token losses into a micro-batch's share of the loss of an optimizer step.

Shares divide by counts over the whole optimizer step, not the micro-batch, so they add up to the same loss for every
split over micro-batches and ranks.
"""

from torch import Tensor

from reasonrl.contracts.batch import LossNormalizer
from reasonrl.functional.masked import masked_mean, masked_sum


def token_mean_share(x: Tensor, mask: Tensor, normalizer: LossNormalizer) -> Tensor:
    """(1 / N) sum_i sum_t x_it with N = all response tokens of the step: every token weighs the same.

    Args:
        x: ``[b, T]``. mask: ``[b, T]`` bool.

    Returns:
        Scalar.
    """
    return masked_sum(x, mask) / max(normalizer.num_response_tokens, 1.0)


def sequence_mean_share(x: Tensor, mask: Tensor, normalizer: LossNormalizer) -> Tensor:
    """(1 / S) sum_i (1 / L_i) sum_t x_it with S = all sequences of the step: all completions weigh the same.

    Source: arXiv:2402.03300 eq. 3. A row without response tokens adds 0.

    Args:
        x: ``[b, T]``. mask: ``[b, T]`` bool.

    Returns:
        Scalar.
    """
    return masked_mean(x, mask, dim=1).sum() / max(normalizer.num_sequences, 1.0)


def constant_length_share(x: Tensor, mask: Tensor, normalizer: LossNormalizer, length: int) -> Tensor:
    """(1 / S) sum_i (1 / length) sum_t x_it with S = all sequences of the step.

    ``length`` is a constant of the run, such as the token limit: a divisor that depends on the completions sampled
    biases the gradient. Source: arXiv:2503.20783 section 3.2.

    Args:
        x: ``[b, T]``. mask: ``[b, T]`` bool.
        length: > 0.

    Returns:
        Scalar.
    """
    return masked_sum(x, mask) / (max(normalizer.num_sequences, 1.0) * length)

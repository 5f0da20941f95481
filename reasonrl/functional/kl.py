"""Per-token estimators of KL(p || q) from tokens sampled from p, and KL losses.

With x = ln p - ln q at the sampled token: k1 = x, k2 = x^2 / 2, k3 = exp(-x) - 1 + x.
Source: J. Schulman, "Approximating KL Divergence", http://joschu.net/blog/kl-approx.html.
As values, k1 and k3 are unbiased; k2 is biased and of low variance.
As differentiated losses they behave differently, see ``kl_loss``.
"""

from typing import Literal

import torch
from torch import Tensor

from reasonrl.functional.masked import check_same_shape, zero_outside

Estimator = Literal["k1", "k2", "k3"]

LOG_RATIO_LIMIT = 20.0
"""Log-ratios are clamped to +-20 before exp: exp(20) = 4.9e8 is outside any trust region, exp(89) is inf."""


def safe_exp(log_ratio: Tensor) -> Tensor:
    """Exponentiate a log-ratio clamped to +-``LOG_RATIO_LIMIT``. NaN stays NaN."""
    return torch.exp(log_ratio.clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT))


def kl_estimate(logprobs: Tensor, other_logprobs: Tensor, mask: Tensor, estimator: Estimator) -> Tensor:
    """Estimate KL(p || q) per token; the tokens must have been sampled from p.

    Args:
        logprobs: ``[B, T]``, ln p of the tokens.
        other_logprobs: ``[B, T]``, ln q of the same tokens.
        mask: ``[B, T]`` bool.
        estimator: ``k1``, ``k2`` or ``k3``.

    Returns:
        ``[B, T]`` in nats, 0 outside the mask.
    """
    check_same_shape("kl_estimate", logprobs=logprobs, other_logprobs=other_logprobs, mask=mask)
    x = zero_outside(logprobs, mask) - zero_outside(other_logprobs, mask)
    if estimator == "k1":
        return x
    if estimator == "k2":
        return 0.5 * x**2
    if estimator == "k3":
        # expm1 keeps the digits that exp(-x) - 1 loses near 0, where k3 ~ x^2 / 2 lives. Beyond the limit the gradient
        # is 0: clamping only the exponential would leave that of + x, which has the wrong sign.
        minus_x = (-x).clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT)
        return torch.expm1(minus_x) - minus_x
    raise ValueError(f"KL estimator must be k1, k2 or k3, got {estimator!r}")


def kl_loss(
    logprobs: Tensor,
    ref_logprobs: Tensor,
    mask: Tensor,
    estimator: Literal["k2", "k3"],
    *,
    old_logprobs: Tensor | None = None,
) -> Tensor:
    """Compute the per-token KL(policy || reference) estimate as a differentiable loss.

    On tokens sampled from the current policy, with x = logprobs - ref_logprobs:
    ``k2``: gradient x * grad ln p, in expectation that of KL(policy || reference) in each state, the reverse KL.
    ``k3``: gradient (1 - exp(-x)) * grad ln p, in expectation that of KL(reference || policy), the *forward*
    KL; this is the term of arXiv:2402.03300 eq. 4.
    ``k1`` is rejected: its expected gradient is 0, so it would only add noise. Use it in the reward.

    With ``old_logprobs``, the estimate is weighted by the ratio r = p / p_old of the sampled token, which makes it
    right off-policy: r * k3 is differentiated through r, which gives r x grad ln p, the reverse KL (arXiv:2512.02556);
    k2 is weighted by the detached ratio, with the same gradient.

    None of these is the gradient of the KL between *sequences*: they leave out how a token changes the later states.
    A penalty in the reward has that gradient.

    Raises:
        ValueError: for any other estimator.
    """
    if estimator not in ("k2", "k3"):
        raise ValueError(f"KL in the loss needs k2 or k3, got {estimator!r}; use k1 in the reward")
    estimate = kl_estimate(logprobs, ref_logprobs, mask, estimator)
    if old_logprobs is None:
        return estimate
    ratio = safe_exp(zero_outside(logprobs, mask) - zero_outside(old_logprobs, mask).detach())
    return estimate * (ratio if estimator == "k3" else ratio.detach())

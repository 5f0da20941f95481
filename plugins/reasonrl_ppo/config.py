"""Options of PPO. Torch-free."""

from dataclasses import dataclass, field
from typing import Literal

from reasonrl import Needs
from reasonrl.contracts.options import require, require_choice
from reasonrl.functional.kl_control import check_kl_target

_ESTIMATORS = {"reward": ("k1",), "loss": ("k2", "k3")}


@dataclass(frozen=True)
class KLConfig:
    """The KL penalty toward the reference.

    In the reward, only k1 gives an unbiased gradient of KL(policy || reference); in the loss, k1 gives none
    at all.
    """

    coef: float = field(default=0.0, metadata={"help": "Weight of the penalty; 0 runs no reference model."})
    estimator: Literal["k1", "k2", "k3"] = field(
        default="k1", metadata={"help": "k1 in the reward; k2 (reverse KL) or k3 (forward KL) in the loss."}
    )
    placement: Literal["reward", "loss"] = field(
        default="reward", metadata={"help": "Subtract it from each token's reward, or add it to the loss."}
    )
    target: float | None = field(
        default=None,
        metadata={"help": "KL to the reference, in nats per token, to adapt coef to; null = constant."},
    )
    horizon: float = field(
        default=10.0, metadata={"help": "With a target, coef changes by at most 20% / horizon in a step."}
    )

    def __post_init__(self) -> None:
        require(self.coef >= 0, "kl.coef", ">= 0", self.coef)
        require_choice("kl.placement", self.placement, _ESTIMATORS)
        allowed = _ESTIMATORS[self.placement]
        expected = f"{' or '.join(allowed)} when kl.placement is {self.placement}"
        require(self.estimator in allowed, "kl.estimator", expected, self.estimator)
        check_kl_target(self.coef, self.target, self.horizon)


@dataclass(frozen=True)
class PPOConfig:
    """Proximal policy optimization with a learned critic."""

    clip_eps: float = field(default=0.2, metadata={"help": "The ratio is clipped below at 1 - clip_eps."})
    clip_eps_high: float | None = field(
        default=None, metadata={"help": "The ratio is clipped above at 1 + this; null = clip_eps."}
    )
    value_clip: float | None = field(
        default=0.5, metadata={"help": "New values are clipped to old +- this in the value loss; null = off."}
    )
    value_coef: float = field(default=1.0, metadata={"help": "Weight of the value loss."})
    gamma: float = field(default=1.0, metadata={"help": "Discount per token."})
    lam: float = field(default=1.0, metadata={"help": "GAE mixing; 1 = Monte Carlo returns, 0 = one step."})
    critic_lam: float | None = field(
        default=None, metadata={"help": "GAE mixing of the critic's targets (VAPO: 1); null = that of the policy."}
    )
    lam_alpha: float | None = field(
        default=None,
        metadata={"help": "The policy's lam is 1 - 1 / (lam_alpha * length), at least 0 (VAPO: 0.05); null = lam."},
    )
    dual_clip: float | None = field(
        default=None, metadata={"help": "With A < 0 the loss is at most -dual_clip * A; null = no second bound."}
    )
    whiten: bool = field(
        default=True, metadata={"help": "Advantages to mean 0 and standard deviation 1 over the whole batch."}
    )
    entropy_coef: float = field(default=0.0, metadata={"help": "Weight of the entropy bonus."})
    kl: KLConfig = field(default_factory=KLConfig, metadata={"help": "Penalty toward the reference model."})

    def __post_init__(self) -> None:
        require(0 < self.clip_eps < 1, "clip_eps", "in (0, 1)", self.clip_eps)
        if self.clip_eps_high is not None:
            require(self.clip_eps_high > 0, "clip_eps_high", "> 0", self.clip_eps_high)
        if self.value_clip is not None:
            require(self.value_clip > 0, "value_clip", "> 0, or null", self.value_clip)
        if self.critic_lam is not None:
            require(0 <= self.critic_lam <= 1, "critic_lam", "in [0, 1], or null", self.critic_lam)
        if self.lam_alpha is not None:
            require(self.lam_alpha > 0, "lam_alpha", "> 0, or null", self.lam_alpha)
            require(self.lam == 1, "lam", "left at 1 when lam_alpha sets it", self.lam)
        if self.dual_clip is not None:
            require(self.dual_clip > 1, "dual_clip", "> 1, or null", self.dual_clip)
        require(self.value_coef > 0, "value_coef", "> 0", self.value_coef)
        require(0 <= self.gamma <= 1, "gamma", "in [0, 1]", self.gamma)
        require(0 <= self.lam <= 1, "lam", "in [0, 1]", self.lam)
        require(self.entropy_coef >= 0, "entropy_coef", ">= 0", self.entropy_coef)

    @property
    def eps_high(self) -> float:
        """The effective upper clip distance."""
        return self.clip_eps if self.clip_eps_high is None else self.clip_eps_high


def needs(config: PPOConfig) -> Needs:
    """Return what PPO needs from the core under ``config``."""
    has_kl = config.kl.coef > 0
    return Needs(
        reference=has_kl,
        critic=True,
        old_for_advantages=has_kl and config.kl.placement == "reward",
        entropy="grad" if config.entropy_coef > 0 else "metric",
    )

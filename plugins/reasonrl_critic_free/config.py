"""Options of the algorithms without a critic. Torch-free."""

from dataclasses import dataclass, field
from typing import Any, Literal

from reasonrl import Needs
from reasonrl.contracts.options import require, require_choice
from reasonrl.functional.kl_control import check_kl_target

_ESTIMATORS = {"reward": ("k1",), "loss": ("k2", "k3")}


def option(default: Any, help_text: str) -> Any:
    """A field with a default and a help text."""
    return field(default=default, metadata={"help": help_text})


@dataclass(frozen=True)
class KLConfig:
    """How the policy is held near the reference.

    In the reward, k1 gives an unbiased gradient of KL(policy || reference) over sequences. In the loss, k2 (reverse KL)
    and k3 (forward KL) give that of each state, and are right off-policy only when weighted.
    """

    coef: float = option(0.0, "Weight of the penalty; 0 runs no reference model.")
    placement: Literal["reward", "loss"] = option("loss", "Add it to the loss, or subtract it from the reward.")
    estimator: Literal["k1", "k2", "k3"] = option("k3", "k3 is the GRPO paper's; k1 belongs in the reward.")
    weighted: bool = option(False, "In the loss: weight by the probability ratio, which is right off-policy.")
    target: float | None = option(None, "KL to the reference, in nats per token, to adapt coef to; null = constant.")
    horizon: float = option(10.0, "With a target, coef changes by at most 20% / horizon in a step.")

    def __post_init__(self) -> None:
        require(self.coef >= 0, "kl.coef", ">= 0", self.coef)
        require_choice("kl.placement", self.placement, tuple(_ESTIMATORS))
        allowed = _ESTIMATORS[self.placement]
        where = f"{' or '.join(allowed)} when kl.placement is {self.placement}"
        require(self.estimator in allowed, "kl.estimator", where, self.estimator)
        require(
            not (self.weighted and self.placement == "reward"),
            "kl.weighted",
            "false when kl.placement is reward",
            self.weighted,
        )
        check_kl_target(self.coef, self.target, self.horizon)


@dataclass(frozen=True)
class CommonConfig:
    """Options of every algorithm without a critic."""

    kl: KLConfig = field(default_factory=KLConfig, metadata={"help": "Penalty toward the reference model."})
    entropy_coef: float = option(0.0, "Weight of the entropy bonus.")

    def __post_init__(self) -> None:
        require(self.entropy_coef >= 0, "entropy_coef", ">= 0", self.entropy_coef)


@dataclass(frozen=True)
class ClipConfig(CommonConfig):
    """Options of the algorithms that clip the probability ratio."""

    clip_eps: float = option(0.2, "The ratio is clipped below at 1 - clip_eps.")
    clip_eps_high: float | None = option(None, "The ratio is clipped above at 1 + this; null = clip_eps.")

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 < self.clip_eps < 1, "clip_eps", "in (0, 1)", self.clip_eps)
        require(self.clip_eps_high is None or self.clip_eps_high > 0, "clip_eps_high", "> 0", self.clip_eps_high)

    @property
    def eps_high(self) -> float:
        """The upper clip distance in force."""
        return self.clip_eps if self.clip_eps_high is None else self.clip_eps_high


@dataclass(frozen=True)
class GRPOConfig(ClipConfig):
    """Group relative policy optimization: the other completions of the prompt are the baseline.

    Every setting but ``normalization: sequence`` on completions of one length is biased: dividing by the group's
    standard deviation weighs easy and hard prompts more than others, dividing by sampled token counts weighs
    completions by their length.
    """

    normalization: Literal["token", "sequence"] = option(
        "token", "Every token weighs the same (favors long completions), or every completion (the paper's)."
    )
    scale: Literal["std", "none"] = option(
        "std", "Divide by the group's standard deviation (favors easy and hard prompts), or only center."
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        require_choice("normalization", self.normalization, ("token", "sequence"))
        require_choice("scale", self.scale, ("std", "none"))


@dataclass(frozen=True)
class DrGRPOConfig(ClipConfig):
    """GRPO without its two biases: no division by the standard deviation, and a constant denominator."""

    length: int | None = option(None, "Tokens to divide by; null = sampling.max_completion_tokens.")

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.length is None or self.length >= 1, "length", ">= 1", self.length)


@dataclass(frozen=True)
class DAPOConfig(ClipConfig):
    """Token-level GRPO with a higher upper clip, dynamic sampling and shaped rewards for overlong completions."""

    clip_eps_high: float | None = option(0.28, "The ratio is clipped above at 1 + this; null = clip_eps.")
    min_accuracy: float = option(0.0, "Dynamic sampling drops groups whose accuracy is not above this.")
    max_accuracy: float = option(1.0, "Dynamic sampling drops groups whose accuracy is not below this.")
    overlong_buffer: int = option(0, "Tokens before the limit over which the penalty grows; 0 = no penalty.")
    overlong_penalty: float = option(1.0, "Penalty of a completion at the token limit.")
    overlong_filter: bool = option(False, "Leave truncated completions out of the loss; the baseline keeps them.")

    def __post_init__(self) -> None:
        super().__post_init__()
        low, high = self.min_accuracy, self.max_accuracy
        require(0 <= low < high, "min_accuracy", f"in [0, max_accuracy = {high})", low)
        require(high <= 1, "max_accuracy", "at most 1", high)
        require(self.overlong_buffer >= 0, "overlong_buffer", ">= 0", self.overlong_buffer)
        require(self.overlong_penalty > 0, "overlong_penalty", "> 0", self.overlong_penalty)
        both = self.overlong_buffer > 0 and self.overlong_filter
        require(not both, "overlong_filter", "false with an overlong_buffer: it would drop what that penalizes", True)


@dataclass(frozen=True)
class RLOOConfig(CommonConfig):
    """REINFORCE with the mean reward of the prompt's other completions as baseline."""

    kl: KLConfig = field(
        default_factory=lambda: KLConfig(placement="reward", estimator="k1"),
        metadata={"help": "Penalty toward the reference model; in the reward as in the paper."},
    )


@dataclass(frozen=True)
class ReinforcePPConfig(ClipConfig):
    """REINFORCE++: a clipped surrogate with advantages normalized over the whole batch."""

    kl: KLConfig = field(
        default_factory=lambda: KLConfig(placement="reward", estimator="k1"),
        metadata={"help": "Penalty toward the reference model; in each token's reward as in the paper."},
    )


@dataclass(frozen=True)
class ReinforcePPBaselineConfig(ClipConfig):
    """REINFORCE++-baseline: rewards less the group's mean, then normalized over the whole batch."""

    kl: KLConfig = field(
        default_factory=lambda: KLConfig(placement="loss", estimator="k2"),
        metadata={"help": "Penalty toward the reference model; k2 in the loss as in the paper."},
    )


@dataclass(frozen=True)
class GSPOConfig(CommonConfig):
    """Group sequence policy optimization: one ratio and one clip for each completion."""

    clip_eps: float = option(3e-4, "The sequence ratio is clipped below at 1 - clip_eps; 0.2 would never clip.")
    clip_eps_high: float = option(4e-4, "The sequence ratio is clipped above at 1 + clip_eps_high.")

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 < self.clip_eps < 1, "clip_eps", "in (0, 1)", self.clip_eps)
        require(self.clip_eps_high > 0, "clip_eps_high", "> 0", self.clip_eps_high)


@dataclass(frozen=True)
class CISPOConfig(CommonConfig):
    """Clipped importance sampling: the ratio is a bounded weight, and every token keeps its gradient."""

    ratio_max: float = option(5.0, "Upper bound of the weight p / p_old itself, not of its distance from 1.")

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.ratio_max >= 1, "ratio_max", ">= 1", self.ratio_max)


@dataclass(frozen=True)
class MaxRLConfig(ClipConfig):
    """Maximum-likelihood RL: advantages divided by the group's mean reward, so that rare successes weigh more."""


@dataclass(frozen=True)
class GDPOConfig(ClipConfig):
    """Group reward-decoupled normalization: each reward is normalized by itself before they are summed."""


@dataclass(frozen=True)
class SAPOConfig(CommonConfig):
    """Soft adaptive policy optimization: a smooth gate on the ratio instead of a clip."""

    temperature_pos: float = option(1.0, "How fast the gate closes for positive advantages.")
    temperature_neg: float = option(1.05, "How fast the gate closes for negative advantages.")

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.temperature_pos > 0, "temperature_pos", "> 0", self.temperature_pos)
        require(self.temperature_neg > 0, "temperature_neg", "> 0", self.temperature_neg)


@dataclass(frozen=True)
class DPPOConfig(CommonConfig):
    """Divergence PPO: a trust region on the change of each token's probability instead of its ratio."""

    max_change: float = option(0.15, "Tokens whose probability has moved further than this are left alone.")

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 < self.max_change < 1, "max_change", "in (0, 1)", self.max_change)


def needs(config: CommonConfig) -> Needs:
    """What an algorithm that compares the completions of a prompt asks of the core."""
    return Needs(
        reference=config.kl.coef > 0,
        old_for_advantages=config.kl.coef > 0 and config.kl.placement == "reward",
        entropy="grad" if config.entropy_coef > 0 else "metric",
        min_group_size=2,
    )


def needs_of_singles(config: CommonConfig) -> Needs:
    """The same for an algorithm whose baseline is the whole batch: one completion a prompt is enough."""
    wanted = needs(config)
    return Needs(reference=wanted.reference, old_for_advantages=wanted.old_for_advantages, entropy=wanted.entropy)

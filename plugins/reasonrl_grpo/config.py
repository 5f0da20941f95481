"""Options of GRPO. Torch-free."""

from dataclasses import dataclass, field
from typing import Literal

from reasonrl import Needs
from reasonrl.contracts.options import require, require_choice


@dataclass(frozen=True)
class GRPOConfig:
    """Group relative policy optimization: the other completions of the prompt are the baseline."""

    clip_eps: float = field(default=0.2, metadata={"help": "The ratio is clipped below at 1 - clip_eps."})
    clip_eps_high: float | None = field(
        default=None, metadata={"help": "The ratio is clipped above at 1 + this; null = clip_eps."}
    )
    normalization: Literal["token", "sequence"] = field(
        default="token",
        metadata={"help": "Weigh every token equally, or every completion (as in the paper)."},
    )
    scale: Literal["std", "none"] = field(
        default="std",
        metadata={"help": "Divide by the group's standard deviation, or only center."},
    )
    kl_coef: float = field(
        default=0.0, metadata={"help": "Weight of the KL penalty in the loss; 0 runs no reference model."}
    )
    kl_estimator: Literal["k2", "k3"] = field(
        default="k3", metadata={"help": "k3: as in the paper (forward KL gradient); k2: reverse KL gradient."}
    )
    entropy_coef: float = field(default=0.0, metadata={"help": "Weight of the entropy bonus."})

    def __post_init__(self) -> None:
        require(0 < self.clip_eps < 1, "clip_eps", "in (0, 1)", self.clip_eps)
        if self.clip_eps_high is not None:
            require(self.clip_eps_high > 0, "clip_eps_high", "> 0", self.clip_eps_high)
        require(self.kl_coef >= 0, "kl_coef", ">= 0", self.kl_coef)
        require(self.entropy_coef >= 0, "entropy_coef", ">= 0", self.entropy_coef)
        require_choice("normalization", self.normalization, ("token", "sequence"))
        require_choice("scale", self.scale, ("std", "none"))
        require_choice("kl_estimator", self.kl_estimator, ("k2", "k3"))

    @property
    def eps_high(self) -> float:
        """The effective upper clip distance."""
        return self.clip_eps if self.clip_eps_high is None else self.clip_eps_high


def needs(config: GRPOConfig) -> Needs:
    """Return what GRPO needs from the core under ``config``."""
    return Needs(
        reference=config.kl_coef > 0,
        entropy="grad" if config.entropy_coef > 0 else "metric",
        min_group_size=2,
    )

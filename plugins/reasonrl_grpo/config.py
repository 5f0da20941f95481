"""Options of GRPO. Torch-free."""

from dataclasses import dataclass, field
from typing import Literal

from reasonrl import Needs


@dataclass(frozen=True)
class GRPOConfig:
    """Group relative policy optimization: the other completions of the prompt are the baseline."""

    clip_eps: float = field(default=0.2, metadata={"help": "The ratio is clipped below at 1 - clip_eps."})
    clip_eps_high: float | None = field(
        default=None, metadata={"help": "The ratio is clipped above at 1 + this; null = clip_eps."}
    )
    normalization: Literal["token", "sequence"] = field(
        default="token",
        metadata={"help": "Every token weighs the same, or every completion (the paper's)."},
    )
    scale: Literal["std", "none"] = field(
        default="std",
        metadata={"help": "Divide by the group's standard deviation, or only center."},
    )
    kl_coef: float = field(
        default=0.0, metadata={"help": "Weight of the KL penalty in the loss; 0 runs no reference model."}
    )
    kl_estimator: Literal["k2", "k3"] = field(
        default="k3", metadata={"help": "k3 is the paper's (forward KL gradient), k2 has the reverse KL's."}
    )
    entropy_coef: float = field(default=0.0, metadata={"help": "Weight of the entropy bonus."})

    def __post_init__(self) -> None:
        _check("clip_eps", self.clip_eps, "in (0, 1)", 0 < self.clip_eps < 1)
        if self.clip_eps_high is not None:
            _check("clip_eps_high", self.clip_eps_high, "> 0", self.clip_eps_high > 0)
        _check("kl_coef", self.kl_coef, ">= 0", self.kl_coef >= 0)
        _check("entropy_coef", self.entropy_coef, ">= 0", self.entropy_coef >= 0)
        _check_choice("normalization", self.normalization, ("token", "sequence"))
        _check_choice("scale", self.scale, ("std", "none"))
        _check_choice("kl_estimator", self.kl_estimator, ("k2", "k3"))

    @property
    def eps_high(self) -> float:
        """The upper clip distance in force."""
        return self.clip_eps if self.clip_eps_high is None else self.clip_eps_high


def _check(name: str, value: object, expected: str, is_ok: bool) -> None:
    if not is_ok:
        raise ValueError(f"{name} must be {expected}, got {value}")


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    _check(name, repr(value), " or ".join(choices), value in choices)


def needs(config: GRPOConfig) -> Needs:
    """What GRPO asks of the core under ``config``."""
    return Needs(
        reference=config.kl_coef > 0,
        entropy="grad" if config.entropy_coef > 0 else "metric",
        min_group_size=2,
    )

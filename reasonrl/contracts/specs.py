"""What registration hooks return: cheap, torch-free descriptions of components.

``factory`` is called as ``factory(config, context)``; give it as an import string ``"pkg.mod:Class"`` so that
listing plugins never imports torch. ``config`` is a plain dataclass with ``field(metadata={"help": ...})``.
"""

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from reasonrl.contracts.metrics import MetricDef

NAME_PATTERN = re.compile(r"^[a-z][a-z0-9_-]*\Z")
RECIPE_NAME_PATTERN = re.compile(r"^[a-z][a-z0-9._-]*\Z")
"""No key of a recipe is called like a recipe, so a dot, as in Qwen2.5, is not ambiguous."""
ISOLATIONS = ("inline", "process")
REWARD_LIMITS = ("isolation", "timeout_s", "memory_mb")
"""Fields of a ``RewardSpec`` that a recipe may override; no reward has options of these names."""


Marks = Callable[[Mapping[str, Any], str], Iterable[tuple[int, int, str]]]


@dataclass(frozen=True)
class NoConfig:
    """The config of a component that has no options."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Needs:
    """What an algorithm asks of the core, known from its config alone."""

    reference: bool = False
    """Log-probabilities under the frozen starting model."""
    critic: bool = False
    """A value for every response token."""
    old_for_advantages: bool = False
    """``old_logprobs`` are read by ``compute_advantages`` already (KL in the reward)."""
    rollout_logprobs: bool = False
    """The sampler's log-probabilities are used in the loss."""
    entropy: Literal["metric", "grad"] = "metric"
    """``grad`` when the loss differentiates the entropy."""
    min_group_size: int = 1


def _check_name(spec: "AnySpec") -> None:
    pattern = RECIPE_NAME_PATTERN if isinstance(spec, RecipeSpec) else NAME_PATTERN
    if not isinstance(spec.name, str) or not pattern.match(spec.name):
        raise ValueError(f"{type(spec).__name__} name {spec.name!r} must match {pattern.pattern}")


def _is_positive(value: object, kinds: tuple[type[float], ...]) -> bool:
    return isinstance(value, kinds) and not isinstance(value, bool) and 0 < value < math.inf


@dataclass(frozen=True, kw_only=True)
class ComponentSpec:
    """Common to tasks, rewards, algorithms and rollout backends.

    ``papers`` are where it comes from, such as ``"arXiv:1707.06347"``; ``reasonrl plugins show`` lists them.
    Without all of ``modules`` it is listed as unavailable, with ``install`` as the cure.
    """

    kind: ClassVar[str] = "component"

    name: str
    summary: str
    factory: str | Callable[[Any, Any], object]
    config: type = NoConfig
    metrics: tuple[MetricDef, ...] = ()
    papers: tuple[str, ...] = ()
    modules: tuple[str, ...] = ()
    install: str = ""

    def __post_init__(self) -> None:
        _check_name(self)


@dataclass(frozen=True, kw_only=True)
class TaskSpec(ComponentSpec):
    """A source of problems. ``default_rewards`` name the rewards of a recipe that lists none.

    ``reads(config)`` is for tasks that read data: option -> file or hub name, empty = nothing. ``recipes check`` then
    looks whether the files are there, and builds the task if it reads no other data than small files.

    ``marks(info, completion)`` finds parts of a completion for the report to highlight: (start, end, kind) in order,
    without overlaps; the kind is ``right``, ``failed`` or ``error``. ``info`` is that of the problem.
    """

    kind: ClassVar[str] = "task"

    default_rewards: tuple[str, ...] = ()
    reads: Callable[[Any], Mapping[str, str]] | None = None
    marks: str | Marks | None = None


@dataclass(frozen=True, kw_only=True)
class RewardSpec(ComponentSpec):
    """A judge of completions.

    ``isolation``: ``inline`` runs in the trainer's process, for code you trust to return; ``process`` runs in a
    worker process that is killed after ``timeout_s`` seconds a completion (a ``GroupReward`` has that for each
    completion of its group) and may address ``memory_mb`` MiB (Linux; None = no limit, which CUDA needs). Such a
    reward is built once in every worker, so its factory and config must be importable, and it must not count on
    what it saw before. ``range`` is (lowest, highest) value; the highest is "correct". A recipe may override the
    first three.

    ``lost_value`` is the score of a completion whose judging takes over ``timeout_s`` or kills the worker, for a reward
    that only the completion can bring to that: a policy must not have it masked out. None: it stays unscored.

    Raises:
        ValueError: if a limit is not positive or the isolation is unknown.
    """

    kind: ClassVar[str] = "reward"

    isolation: Literal["inline", "process"] = "inline"
    timeout_s: float = 5.0
    memory_mb: int | None = 2048
    range: tuple[float, float] = (0.0, 1.0)
    lost_value: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.lost_value is not None and not self.range[0] <= self.lost_value <= self.range[1]:
            raise ValueError(f"lost_value must be None or within the range {self.range}, got {self.lost_value!r}")
        if self.isolation not in ISOLATIONS:
            raise ValueError(f"isolation must be one of {', '.join(ISOLATIONS)}, got {self.isolation!r}")
        if not _is_positive(self.timeout_s, (int, float)):
            raise ValueError(f"timeout_s must be a number of seconds > 0, got {self.timeout_s!r}")
        if self.memory_mb is not None and not (_is_positive(self.memory_mb, (int,)) and self.memory_mb <= 1 << 30):
            raise ValueError(
                f"memory_mb must be a whole number > 0, at most {1 << 30}, or None, got {self.memory_mb!r}"
            )


@dataclass(frozen=True, kw_only=True)
class AlgorithmSpec(ComponentSpec):
    """A learning rule. ``needs(config)`` is torch-free, so that a recipe can be checked without torch."""

    kind: ClassVar[str] = "algorithm"

    needs: Callable[[Any], Needs]


@dataclass(frozen=True, kw_only=True)
class RolloutBackendSpec(ComponentSpec):
    """A backend that samples.

    ``provides_logprobs``: its completions carry log-probabilities; an algorithm that needs them is refused without.
    ``truncates``: it applies ``SamplingParams.top_p`` and ``top_k``; a suite that sets them is refused without.
    ``shares_policy``: it samples with ``RolloutContext.policy``, so sharded weights are gathered between
    ``sync_weights`` and the end of sampling.
    ``samples_during_update(config)``: whether it samples while the policy is updated, from the weights of the last
    ``sync_weights``; torch-free. ``generate`` then runs in a thread, each process for itself, and ``__exit__`` in
    another thread ends it.
    """

    kind: ClassVar[str] = "rollout_backend"

    provides_logprobs: bool = True
    truncates: bool = False
    shares_policy: bool = False
    samples_during_update: Callable[[Any], bool] | None = None


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """A named model that a plugin ships: a Hugging Face model folder. ``recipe`` names the recipe it is made for."""

    kind: ClassVar[str] = "model"

    name: str
    summary: str
    path: Path
    recipe: str | None = None

    def __post_init__(self) -> None:
        _check_name(self)


@dataclass(frozen=True, kw_only=True)
class RecipeSpec:
    """A packaged recipe file."""

    kind: ClassVar[str] = "recipe"

    name: str
    summary: str
    path: Path

    def __post_init__(self) -> None:
        _check_name(self)


AnySpec = ComponentSpec | ModelSpec | RecipeSpec

"""The learning rate as a pure function of the step, also after a resume with a new length."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from reasonrl.recipe.schema import OptimizerConfig

LOW = 0.1
"""Fraction of the peak rate below which further training changes little."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """Linear warm-up over ``warmup_steps``, then constant, linear to 0 or half a cosine to 0 at the end.

    ``plans``: ``((0, 30), (20, 60))`` is a run that was planned for 30 steps and, after step 20, for 60. A later plan
    starts at the rate of the last step before it, and comes down to 0 at its own end: the rate never jumps. One that is
    made during the warm-up is as good as the first.
    """

    config: OptimizerConfig
    plans: tuple[tuple[int, int], ...]

    def factor(self, step: int) -> float:
        """Multiplier of the base learning rate at ``step``, from 1."""
        return self._factor(step, len(self.plans) - 1)

    def _factor(self, step: int, newest: int) -> float:
        warmup = self.config.warmup_steps
        if step <= warmup:
            return step / warmup
        number = max(n for n in range(newest + 1) if self.plans[n][0] < step)
        after, total = self.plans[number]
        if number == 0 or after <= warmup:
            return self._shape((step - 1 - warmup) / max(1, total - warmup))
        level = self._factor(after, number - 1)
        return level * self._shape((step - 1 - after) / max(1, total - after))

    def _shape(self, progress: float) -> float:
        if self.config.schedule == "linear":
            return 1.0 - progress
        if self.config.schedule == "cosine":
            return 0.5 * (1.0 + math.cos(math.pi * progress))
        return 1.0

    def to_json(self) -> list[list[int]]:
        """The plans as ``open_schedule`` reads them from a checkpoint."""
        return [list(plan) for plan in self.plans]


def open_schedule(
    config: OptimizerConfig, total_steps: int, *, after: int = 0, progress: Mapping[str, object] | None = None
) -> Schedule:
    """The schedule of a run of ``total_steps``.

    Args:
        after: the step that a resumed run has finished.
        progress: what the job told after that step, with the plans up to then.
    """
    known = cast("Sequence[tuple[int, int]]", (progress or {}).get("plans", []))
    plans = tuple((start, steps) for start, steps in known) or ((0, total_steps),)
    if plans[-1][1] != total_steps:
        plans = ((0, total_steps),) if after == 0 else (*plans, (after, total_steps))
    return Schedule(config, plans)


def describe_replan(schedule: Schedule, after: int) -> str:
    """What a change of length means for the learning rate from now on; empty if there is none, or no effect."""
    config, (start, total) = schedule.config, schedule.plans[-1]
    if len(schedule.plans) == 1 or start != after or config.schedule == "constant" or after <= config.warmup_steps:
        return ""
    rate = config.learning_rate * schedule.factor(after)
    text = (
        f"optimizer.schedule={config.schedule} was planned for {schedule.plans[-2][1]} steps: from step {after + 1} "
        f"the learning rate decays from its current {rate:.2g} to 0 at step {total}"
    )
    if schedule.factor(after) >= LOW:
        return text
    return f"{text}; for a higher rate start a new run from the checkpoint (model.path)"

"""Learning-rate schedules as pure functions of the step: nothing to save, nothing to restore."""

import math

from reasonrl.recipe.schema import OptimizerConfig


def learning_rate_factor(config: OptimizerConfig, step: int, total_steps: int) -> float:
    """Multiplier of the base learning rate at ``step`` (from 1) of ``total_steps``.

    Linear warm-up over ``warmup_steps``, then constant, linear to 0 or half a cosine to 0 at the end.
    """
    if step <= config.warmup_steps:
        return step / config.warmup_steps
    span = max(1, total_steps - config.warmup_steps)
    progress = (step - 1 - config.warmup_steps) / span
    if config.schedule == "linear":
        return 1.0 - progress
    if config.schedule == "cosine":
        return 0.5 * (1.0 + math.cos(math.pi * progress))
    return 1.0

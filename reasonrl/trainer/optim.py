"""The optimizer step of all trainers; skipped if loss, gradient or their inputs are not finite."""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import torch
from torch.nn import Parameter
from torch.optim import Optimizer

from reasonrl.contracts.metric_keys import MAX_CONSECUTIVE_SKIPS
from reasonrl.errors import note_stage


@dataclass(frozen=True, slots=True)
class StepResult:
    """What became of one optimizer step. ``norms``: role -> L2 norm of its gradient before clipping."""

    norms: Mapping[str, float]
    is_taken: bool

    @property
    def has_finite_gradient(self) -> bool:
        """Whether the gradient norm of every role is finite."""
        return all(map(math.isfinite, self.norms.values()))


class GuardedOptimizer:
    """Clips and steps; a step that is not finite changes no bit of the parameters or of the optimizer's state.

    ``consecutive_skips`` counts the steps left out since the last one taken; it is state of the run. ``begun`` counts
    those that the optimizer has begun in this process: one that raises may have changed some parameters.
    """

    def __init__(self, optimizer: Optimizer, max_grad_norm: float) -> None:
        self._optimizer = optimizer
        self._max_grad_norm = max_grad_norm
        self.consecutive_skips = 0
        self.begun = 0

    @property
    def is_stuck(self) -> bool:
        """Too many steps in a row were skipped for the run to continue."""
        return self.consecutive_skips >= MAX_CONSECUTIVE_SKIPS

    def step(self, *, is_finite: bool, frozen: Collection[str] = ()) -> StepResult:
        """Clip each parameter group by itself, step, and clear the gradients.

        Args:
            is_finite: what was computed before the gradients is; every rank passes the same.
            frozen: roles of groups that this step leaves alone.
        """
        norms = {}
        for group in self._optimizer.param_groups:
            if group["role"] in frozen:
                for parameter in group["params"]:
                    parameter.grad = None
            else:
                norms[group["role"]] = clip(group["params"], self._max_grad_norm)
        result = StepResult(norms, is_finite and all(map(math.isfinite, norms.values())))
        if result.is_taken:
            self._take()
        self._finish(is_taken=result.is_taken)
        return result

    def skip(self) -> None:
        """Leave a step out whose gradients were not even computed."""
        self._finish(is_taken=False)

    def _take(self) -> None:
        self.begun += 1
        known = set(self._optimizer.state)
        try:
            self._optimizer.step()
        except BaseException as error:
            note_stage(error, "optimizer")
            # Where the memory for a parameter's state ran out, half of that state would pass for a whole one.
            for parameter in [p for p in self._optimizer.state if p not in known]:
                del self._optimizer.state[parameter]
            raise

    def _finish(self, *, is_taken: bool) -> None:
        self._optimizer.zero_grad(set_to_none=True)
        self.consecutive_skips = 0 if is_taken else self.consecutive_skips + 1


def set_learning_rate(optimizer: Optimizer, factor: float) -> None:
    """Scale every group's base rate."""
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * factor


def clip(parameters: list[Parameter], max_norm: float) -> float:
    """Scale the gradients to an L2 norm of at most ``max_norm``; returns the norm they had."""
    norm = torch.nn.utils.clip_grad_norm_(parameters, max_norm)
    full = getattr(norm, "full_tensor", None)  # a sharded (DTensor) norm under FSDP
    return float(full() if full else norm)

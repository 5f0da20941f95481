"""The interface of a trainer to its run: take a step, and be saved and restored between steps."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch import nn
from torch.optim import Optimizer

from reasonrl.contracts.data import ScoredGroup, StepRecord
from reasonrl.text import clip


@dataclass(frozen=True, kw_only=True, slots=True)
class StepOutcome:
    """A finished step. ``diagnosis``: why the run must stop here; empty if it need not.

    ``token_figures``: of the first completions of ``groups``, for their transcripts.
    """

    record: StepRecord
    groups: Sequence[ScoredGroup] = ()
    diagnosis: str = ""
    token_figures: Sequence[Mapping[str, Any] | None] = ()


class Job(Protocol):
    """A trainer. ``policy`` and ``optimizer`` as accelerate prepared them."""

    @property
    def policy(self) -> nn.Module:
        """The trained model."""
        ...

    @property
    def optimizer(self) -> Optimizer:
        """Its optimizer."""
        ...

    @property
    def policy_version(self) -> int:
        """Changes with the weights; the rollout backend is synced when it does."""
        ...

    @property
    def optimizer_steps(self) -> int:
        """Optimizer steps that this process has begun; only they change the tensors."""
        ...

    @property
    def carried(self) -> Sequence[ScoredGroup]:
        """Groups that have been sampled and wait for the next step, those of all ranks on each."""
        ...

    def step(self, step: int) -> StepOutcome:
        """Take step ``step``, counted from 1."""
        ...

    def progress(self) -> dict[str, object]:
        """JSON, a copy: with the tensors, ``carried`` and ``pending``, all that the next step depends on.

        All ranks call it between steps.
        """
        ...

    def pending(self, *, is_alone: bool = False) -> Sequence[ScoredGroup]:
        """Groups that are sampled ahead for the next step, those of all ranks on each; waits until they are there.

        All ranks call it between steps, or with ``is_alone`` one that is out of step with the others.

        Raises:
            ReasonRLError: if sampling them has failed, or the other ranks' are needed and not to be had.
        """
        ...

    def restore(
        self, progress: Mapping[str, Any], carried: Sequence[ScoredGroup] = (), pending: Sequence[ScoredGroup] = ()
    ) -> None:
        """Load what ``progress``, ``carried`` and ``pending`` were in another process."""
        ...


def read_count(progress: Mapping[str, Any], key: str) -> int:
    """A count from a checkpoint.

    Raises:
        ValueError: if it is missing, or no count.
    """
    value = progress.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 63:
        raise ValueError(f"progress.{key} is {clip(repr(value), 60)}, expected a whole number of 0 or more")
    return value

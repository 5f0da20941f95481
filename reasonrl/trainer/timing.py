"""Measure the stages of a step: seconds and peak memory."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch

from reasonrl.contracts.metrics import Metric
from reasonrl.errors import note_stage
from reasonrl.trainer.memory import peak_gib, restart_peak, used_gib

CPU = torch.device("cpu")
MEASURED = ("rollout_s", "policy_eval_s", "update_s")
"""Stages whose peaks are metrics."""


@dataclass(slots=True)
class Timer:
    """Seconds and peak memory by stage. Stages may be nested, a peak counts for the innermost and for all of them.

    A stage ends when the device has done its work: else its last kernels would count for the next stage. That costs
    one wait a stage, at a place where the host mostly waits for a result anyway.
    """

    device: torch.device = CPU
    seconds: dict[str, float] = field(default_factory=dict)
    peaks: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Measure the ``with`` block as ``stage``, together with earlier ones; an error in it is marked with it."""
        restart_peak(self.device)
        started = time.perf_counter()
        try:
            yield
            synchronize(self.device)
        except BaseException as error:
            note_stage(error, stage)
            raise
        finally:
            self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - started
            self.peaks[stage] = max(self.peaks.get(stage, 0.0), peak_gib(self.device))

    def metrics(self) -> dict[str, float]:
        """``time/<stage>``. ``other_s``: of a whole step what no stage took, so that the stages add up to it."""
        found = {f"time/{stage}": seconds for stage, seconds in self.seconds.items()}
        if "step_s" in self.seconds:
            found["time/other_s"] = max(0.0, 2 * self.seconds["step_s"] - sum(self.seconds.values()))
        return found

    def memory(self) -> Mapping[str, Metric]:
        """``memory/...``, the largest of all ranks."""
        found = {stage.removesuffix("_s"): peak for stage, peak in self.peaks.items() if stage in MEASURED}
        found["peak"] = max(self.peaks.values())
        if (used := used_gib(self.device)) is not None:
            found["used"] = used
        return {f"memory/{name}_gib": Metric(gib, 1.0, "max") for name, gib in found.items()}


def synchronize(device: torch.device) -> None:
    """Wait until the device has done all its work."""
    if device.type != "cpu":
        getattr(torch, device.type).synchronize()

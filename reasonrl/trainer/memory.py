"""Peak memory: of tensors on a GPU, where there is none of the whole process."""

from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import torch

GIB = 1 << 30
_OF_LINUX = Path("/proc/self")


def restart_peak(device: torch.device) -> None:
    """Forget the peaks so far, where the platform can."""
    counters = _counters(device)
    if counters is not None:
        counters.reset_peak_memory_stats(device)
    elif device.type == "cpu":
        with suppress(OSError):
            (_OF_LINUX / "clear_refs").write_text("5", encoding="ascii")


def peak_gib(device: torch.device) -> float:
    """The peak since ``restart_peak``; on Apple's GPUs, which keep none, what is in use now."""
    counters = _counters(device)
    if counters is not None:
        return float(counters.max_memory_allocated(device) / GIB)
    if device.type == "mps":
        return torch.mps.current_allocated_memory() / GIB
    return _peak_of_process() / GIB


def used_gib(device: torch.device) -> float | None:
    """Memory in use on a GPU by all processes, caches included: what is left is all that anybody can still have."""
    counters = _counters(device)
    if counters is None:
        return None
    free, total = counters.mem_get_info(device)
    return float((total - free) / GIB)


def free_gib(device: torch.device) -> float:
    """Memory that is free on the device's GPU, else on this machine."""
    counters = _counters(device)
    return float(counters.mem_get_info(device)[0] if counters is not None else psutil.virtual_memory().available) / GIB


def gpu_name(device: torch.device) -> str | None:
    """The model of the GPU, such as ``NVIDIA H100 80GB HBM3``."""
    module: Any = getattr(torch, device.type, None)
    return str(module.get_device_name(device)) if hasattr(module, "get_device_name") else None


def _counters(device: torch.device) -> Any:
    """Torch's module for a kind of GPU that counts memory, such as ``torch.cuda``."""
    module = getattr(torch, device.type, None)
    return module if hasattr(module, "max_memory_allocated") else None


def _peak_of_process() -> int:
    with suppress(OSError):
        for line in (_OF_LINUX / "status").read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return int(psutil.Process().memory_info().rss)

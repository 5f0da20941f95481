"""The speed of this process's device in a matrix product: what a step's operations are compared with."""

import time
from functools import cache

import torch

from reasonrl.trainer.timing import synchronize

_SIZES = {"cpu": 512}
_OTHER_SIZE = 4096
_LEAST_S = 0.03
_REPEATS = 5


def peak_flops(device: torch.device, dtype: torch.dtype = torch.float32) -> float:
    """``measure_flops`` once a process; on a CPU always in float32, and once for each number of threads."""
    is_cpu = device.type == "cpu"
    return _remembered(device, torch.float32 if is_cpu else dtype, torch.get_num_threads() if is_cpu else 0)


@cache
def _remembered(device: torch.device, dtype: torch.dtype, threads: int) -> float:
    return measure_flops(device, dtype)


@torch.no_grad()
def measure_flops(device: torch.device, dtype: torch.dtype = torch.float32) -> float:
    """Operations per second of a square product: the best of a few tries, in well under 0.2 s."""
    size = _SIZES.get(device.type, _OTHER_SIZE)
    a = torch.linspace(-1.0, 1.0, size * size, device=device).view(size, size).to(dtype)
    out = a @ a  # the first one loads kernels and wakes threads
    synchronize(device)
    best, started, tries = float("inf"), time.perf_counter(), 0
    while tries < _REPEATS or time.perf_counter() - started < _LEAST_S:
        before = time.perf_counter()
        torch.matmul(a, a, out=out)
        synchronize(device)
        best = min(best, time.perf_counter() - before)
        tries += 1
    return 2.0 * size**3 / best

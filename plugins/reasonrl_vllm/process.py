"""What vLLM changes in the process that it is started in, put back."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import torch

IN_THIS_PROCESS = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0"}
"""Whatever the user says: weights are handed over in memory."""
# Without them vLLM sends statistics home, writes a page of log, and pins threads.
DEFAULTS = {
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
}
_INHERITED = ("LD_PRELOAD", "PYTHONHASHSEED", "NUMEXPR_MAX_THREADS")
"""Set by vLLM for its own children; ours, the workers of rewards, must not inherit them."""


@contextmanager
def random_state_kept() -> Iterator[None]:
    """vLLM seeds every global generator when it starts, and draws from torch's when it samples."""
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    python_state, numpy_state = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=devices):
        try:
            yield
        finally:
            random.setstate(python_state)
            np.random.set_state(numpy_state)


@contextmanager
def process_kept(told: Mapping[str, str]) -> Iterator[None]:
    """Around the start: generators, number of threads and environment are the trainer's again afterward.

    ``told``: variables that are set for vLLM to read.
    """
    threads, set_num_threads = torch.get_num_threads(), torch.set_num_threads
    inherited = {name: os.environ.get(name) for name in (*_INHERITED, *told)}
    os.environ.update(told)
    with random_state_kept():
        try:
            yield
        finally:
            # On a CPU vLLM replaces it by a function that does nothing.
            torch.set_num_threads = set_num_threads
            torch.set_num_threads(threads)
            for name, value in inherited.items():
                os.environ.pop(name, None)
                if value is not None:
                    os.environ[name] = value

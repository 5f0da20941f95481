"""Undo what vLLM changes in the process it starts in."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import torch

IN_THIS_PROCESS = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0"}
"""Always set: weights are passed in memory."""
# By default vLLM reports usage statistics, logs a lot and pins threads.
DEFAULTS = {
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
}
_INHERITED = ("LD_PRELOAD", "PYTHONHASHSEED", "NUMEXPR_MAX_THREADS")
"""Set by vLLM for its children; reward workers must not inherit them."""


@contextmanager
def preserve_rng_state() -> Iterator[None]:
    """Restore the global generators: vLLM seeds them when it starts and draws from torch's when it samples."""
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    python_state, numpy_state = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=devices):
        try:
            yield
        finally:
            random.setstate(python_state)
            np.random.set_state(numpy_state)


@contextmanager
def preserve_process_state(env: Mapping[str, str]) -> Iterator[None]:
    """Wrap the start of vLLM and restore generators, thread count and environment afterward.

    ``env``: Variables to set for vLLM.
    """
    threads, set_num_threads = torch.get_num_threads(), torch.set_num_threads
    inherited = {name: os.environ.get(name) for name in (*_INHERITED, *env)}
    os.environ.update(env)
    with preserve_rng_state():
        try:
            yield
        finally:
            # On a CPU vLLM replaces it with a no-op.
            torch.set_num_threads = set_num_threads
            torch.set_num_threads(threads)
            for name, value in inherited.items():
                os.environ.pop(name, None)
                if value is not None:
                    os.environ[name] = value

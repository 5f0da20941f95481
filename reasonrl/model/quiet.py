"""Silence transformers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Disable progress bars, warnings and telemetry while loading or saving; errors still raise."""
    from huggingface_hub import constants
    from transformers.utils import logging as hf_logging

    constants.HF_HUB_DISABLE_TELEMETRY = True
    level, bars = hf_logging.get_verbosity(), hf_logging.is_progress_bar_enabled()
    hf_logging.set_verbosity_error()
    hf_logging.disable_progress_bar()
    try:
        yield
    finally:
        hf_logging.set_verbosity(level)
        if bars:
            hf_logging.enable_progress_bar()

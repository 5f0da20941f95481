"""The floating-point precision of devices."""

import torch


def widest_float(device: torch.device) -> torch.dtype:
    """Return float64 if ``device`` supports it, else float32 (Apple's GPUs do not)."""
    try:
        torch.empty((), dtype=torch.float64, device=device)
    except (TypeError, RuntimeError):
        return torch.float32
    return torch.float64

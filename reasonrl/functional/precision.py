"""What precision a device has."""

import torch


def widest_float(device: torch.device) -> torch.dtype:
    """float64 where ``device`` computes in it, else float32: Apple's GPUs refuse to make a float64 tensor."""
    try:
        torch.empty((), dtype=torch.float64, device=device)
    except (TypeError, RuntimeError):
        return torch.float32
    return torch.float64

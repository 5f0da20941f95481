"""Loading, forward passes, LoRA and export of policies."""

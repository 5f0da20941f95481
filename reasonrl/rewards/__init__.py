"""Runs rewards and combines what they say. Torch-free."""

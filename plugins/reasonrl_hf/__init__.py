"""Rollout backend ``hf``: samples with the policy's own module."""

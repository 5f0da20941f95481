"""Writes plugin projects from the templates beside it. Torch-free, no network."""

"""Proximal policy optimization, a bundled plugin."""

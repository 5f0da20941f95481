"""Proximal policy optimisation, a bundled plugin."""

"""Group relative policy optimisation, a bundled plugin."""

"""Group relative policy optimization, a bundled plugin."""

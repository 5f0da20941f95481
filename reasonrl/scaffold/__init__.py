"""Create plugin projects from templates. Torch-free, no network."""

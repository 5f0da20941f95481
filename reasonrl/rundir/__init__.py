"""The folder of a run: its layout, lock, manifest, metrics and checkpoints. Torch-free."""

"""Recipes: read, merge, check and resolve. Torch-free."""

"""Held-out suites, their statistics and intervals."""

"""Estimates, intervals and tests for evaluations."""

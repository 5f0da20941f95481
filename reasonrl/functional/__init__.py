"""Masked reductions, KL estimators, advantages and log-probabilities as pure functions."""

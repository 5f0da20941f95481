"""One training step: rollouts, scores, advantages, update."""

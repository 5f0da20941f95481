"""Generalized advantages by the sum that defines them (arXiv:1506.02438 eq. 16), row by row."""


def gae_row(
    rewards: list[float], values: list[float], mask: list[bool], gamma: float, lam: float
) -> tuple[list[float], list[float]]:
    """Quadratic time on purpose: A_t = sum_l (gamma lam)^l delta_{t+l}, over the steps left by the mask."""
    steps = [t for t, taken in enumerate(mask) if taken]
    r = [rewards[t] for t in steps]
    v = [values[t] for t in steps] + [0.0]
    delta = [r[k] + gamma * v[k + 1] - v[k] for k in range(len(steps))]
    advantages, returns = [0.0] * len(mask), [0.0] * len(mask)
    for k, t in enumerate(steps):
        advantages[t] = sum((gamma * lam) ** j * delta[k + j] for j in range(len(steps) - k))
        returns[t] = advantages[t] + v[k]
    return advantages, returns

"""Positions at even distances."""


def pick_evenly(count: int, most: int) -> list[int]:
    """Pick at most ``most`` >= 1 of ``count`` positions: the last, the first, and evenly spaced ones between.

    Example:
        pick_evenly(11, 6) -> [0, 2, 4, 6, 8, 10].
    """
    if count <= most:
        return list(range(count))
    if most == 1:
        return [count - 1]
    return [round(i * (count - 1) / (most - 1)) for i in range(most)]

"""Checks for the ``__post_init__`` of a component's config dataclass."""

from collections.abc import Collection


def require(holds: bool, name: str, expected: str, got: object) -> None:
    """Refuse the value of an option unless ``holds``, which NaN should not.

    Raises:
        ValueError: ``name must be expected, got ...``.
    """
    if not holds:
        raise ValueError(f"{name} must be {expected}, got {got!r}")


def require_choice(name: str, value: str, choices: Collection[str]) -> None:
    """Refuse a value that is not one of ``choices``.

    Raises:
        ValueError: naming them.
    """
    require(value in choices, name, f"one of {', '.join(choices)}", value)

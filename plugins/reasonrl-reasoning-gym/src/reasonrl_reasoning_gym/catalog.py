"""What reasoning-gym offers. It is imported when something is asked: that takes seconds."""

import difflib
import importlib
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

RESERVED = ("seed", "size")
MIXTURE = "composite"
"""reasoning-gym's own mixture of datasets. Ours has held-out problems, so it stands aside."""


def gym() -> Any:
    """The module.

    Raises:
        ValueError: saying how to install it.
    """
    try:
        return importlib.import_module("reasoning_gym")
    except ImportError as err:
        raise ValueError(f"reasoning-gym cannot be imported ({err}); pip install reasoning-gym") from err


def dataset_names() -> list[str]:
    """Every registered dataset but the mixture, sorted."""
    gym()
    registered = importlib.import_module("reasoning_gym.factory").DATASETS
    return sorted(name for name in registered if name != MIXTURE)


def option_names(name: str) -> list[str]:
    """The options of a dataset, without those that the recipe's seed and the splits decide."""
    gym()
    _, config = importlib.import_module("reasoning_gym.factory").DATASETS[name]
    return sorted(f.name for f in fields(config) if f.init and f.name not in RESERVED)


def check_dataset(name: str, options: Mapping[str, Any], at: str) -> None:
    """Refuse an unknown dataset, an unknown option, or what the dataset itself refuses.

    Raises:
        ValueError: its text begins with ``at``.
    """
    if name == MIXTURE:
        raise ValueError(f"{at} must not be {MIXTURE}, which is a mixture; list its parts under datasets")
    known = dataset_names()
    if name not in known:
        raise ValueError(f"{at} must be a dataset of reasoning-gym, got {name!r}{_nearest(name, known)}")
    for key in options:
        if key in RESERVED:
            raise ValueError(f"{at} must not set {key}: the recipe's seed and the split decide it")
        if key not in option_names(name):
            hint = _nearest(key, option_names(name)) or f"; known: {', '.join(option_names(name))}"
            raise ValueError(f"{at} must hold options of {name}, got {key!r}{hint}")
    _, config = importlib.import_module("reasoning_gym.factory").DATASETS[name]
    try:
        getattr(config(**options), "validate", lambda: None)()
    except (AssertionError, AttributeError, TypeError, ValueError) as err:  # it checks by assertion, not type
        raise ValueError(f"{at} must hold valid options of {name}: {err or type(err).__name__}") from err


def _nearest(name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f"; did you mean '{close[0]}'?" if close else ""

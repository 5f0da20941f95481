"""What a rollout backend needs beside the trainer, for ``reasonrl plan``. Torch-free."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class BackendMemory:
    """Returned by the optional method ``plan_memory()`` of a rollout backend's config.

    ``parallel``: completions decoded together. ``shares_model``: the trainer's own model decodes them, instead of an
    engine. ``sampling`` and ``training``: share of each GPU's memory that the engine holds during sampling, and during
    the rest of the step. ``shards``: GPUs over which it splits its copy of the weights.
    """

    parallel: int
    shares_model: bool = False
    sampling: float = 0.0
    training: float = 0.0
    shards: int = 1

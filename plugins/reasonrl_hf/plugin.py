"""Registers the rollout backend ``hf``. Torch-free: listing plugins must stay fast."""

from collections.abc import Iterable

from reasonrl import RolloutBackendSpec, hookimpl
from reasonrl_hf.config import HFConfig


@hookimpl
def reasonrl_rollout_backends() -> Iterable[RolloutBackendSpec]:
    """Sampling with the trainer's own model, for any causal LM of transformers."""
    yield RolloutBackendSpec(
        name="hf",
        summary="Samples with the trainer's own model: any device, no second copy of the weights.",
        factory="reasonrl_hf.backend:HFBackend",
        config=HFConfig,
        truncates=True,
        shares_policy=True,
        modules=("transformers",),
        install="pip install transformers",
    )
